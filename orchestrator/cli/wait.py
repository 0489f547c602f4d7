"""`orch wait`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options, render, words
from orchestrator.core.jobs import Job

if TYPE_CHECKING:
    from orchestrator.service.context import Context

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\norch wait k3f9m2qa && orch predict k3f9m2qa cat.jpg\n\norch wait k3f p7x --timeout 3600"
)
def wait(
    context: typer.Context,
    jobs: options.Jobs,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Give up waiting after so long; the jobs go on.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Wait until jobs have ended.

    Exit codes: 0 all succeeded, 5 one failed, 6 one was cancelled, 7 the time was not enough. Ctrl-C leaves the jobs
    alone.
    """
    with options.opened(context) as opened:
        job_ids = [opened.store.find(text).id for text in jobs]
        until_ended(opened, job_ids, timeout=timeout, to=render.mode(as_json=as_json))


def until_ended(
    opened: "Context", job_ids: Iterable[str], *, to: render.Mode, timeout: float | None = None, quiet: bool = False
) -> None:
    """Wait for jobs, print each as it ends unless `quiet`, and raise what the worst of them is worth."""
    from orchestrator.service import follow

    ids = list(job_ids)
    ended: list[Job] = []
    with options.detaching(*ids):
        for job in follow.wait(opened.store, ids, timeout=timeout, away=options.say_away):
            ended.append(job)
            if not quiet:
                _show(job, to)
    follow.verdict(ended)


def _show(job: Job, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import views

        render.json_line(views.job(job))
    elif to is render.Mode.PIPE:
        render.line(job.id, job.state, job.reason, job.best_accuracy)
    else:
        best = f"  best {words.percent(job.best_accuracy)}" if job.best_accuracy is not None else ""
        render.console().print(render.state(f"{job.state}  {job.id}{best}", of=job.state))
