"""`orch list`."""

from typing import Annotated

import typer

from orchestrator.cli import options, render
from orchestrator.core.states import JobState

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch list\n\norch list -a --state failed\n\norch list --tag cats | cut -f1")
def list_(
    context: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All jobs, not only the last finished.")] = False,
    number: Annotated[int | None, typer.Option("-n", min=1, metavar="N", help="At most so many.")] = None,
    state: Annotated[list[JobState] | None, typer.Option(help="Only this state; may be given again.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only with this tag; may be given again.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List jobs.

    Without options: what waits and runs, and the last ten that finished; the newest first.
    """
    from orchestrator.service import query  # noqa: PLC0415 - SQLAlchemy is not for help

    tags = tuple(tag or ())
    with options.opened(context) as opened:
        if everything or state or number:
            jobs = query.jobs(opened.store, states=tuple(state or ()), tags=tags, limit=number)
        else:
            jobs = query.recent(opened.store, tags=tags)
        silent = query.silent_ids(query.living(opened.store), opened.settings)
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.document(views.JobsPayload(jobs=tuple(views.job(job, silent) for job in jobs)))
        return
    from orchestrator.cli import jobrows  # noqa: PLC0415

    if jobs or to is render.Mode.PIPE:
        jobrows.show(jobs, silent=silent, to=to)
    else:
        render.talk("No jobs. `orch submit --data digits` queues a small one.")
