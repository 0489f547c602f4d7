"""`orch list`."""

import time
from collections.abc import Container
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words
from orchestrator.core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.jobs import Job

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch list

orch list -a --state failed --user ada

orch list --sort -best --columns job,best,lr,epochs

orch list --tag cats | cut -f1
"""

#: Seconds between two looks.
_EVERY = 2.0


@app.command(epilog=_EXAMPLES)
def list_(
    context: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All jobs, also those that ended long ago.")] = False,
    number: Annotated[int | None, typer.Option("-n", min=1, metavar="N", help="At most so many jobs.")] = None,
    state: Annotated[list[JobState] | None, typer.Option(help="Only jobs of this state; may be given again.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Only jobs with this tag; given again, only those with all of them."),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this user.")] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="[-]COLUMN", help="Sort by this column; with a - the highest first.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Only these columns, such as job,state,priority,epochs,lr,note.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List jobs.

    Without options: what waits and runs, and the last ten that finished; the newest first.
    """
    from orchestrator.cli import jobrows
    from orchestrator.core.jobs import JobFilter
    from orchestrator.service import query

    to, tags = render.mode(as_json=as_json), tuple(tag or ())
    only = [name.strip() for name in columns.split(",")] if columns else None
    jobrows.chosen((), only)  # refuses what is no column before anything is looked up
    if watch and to is not render.Mode.TERMINAL:
        raise errors.UsageError("--watch needs a terminal.", hint="`orch watch JOB` follows a job in a pipe.")
    with options.opened(context) as opened:

        def look() -> "tuple[list[Job], Container[str]]":
            if everything or state or number:
                # The order decides which of them are the first, so that a limit comes after it.
                limit = None if sort else number
                which = JobFilter(states=tuple(state or ()), tags=tags, user=user, limit=limit)
                jobs = opened.store.jobs(which)
            else:
                jobs = query.recent(opened.store, tags=tags, user=user)
            silent = query.silent_ids(query.living(opened.store), opened.settings)
            return (jobrows.ordered(jobs, silent, sort)[:number] if sort else jobs), silent

        if watch:
            _watch(look, only)
        else:
            _show(*look(), only=only, to=to)


def _show(jobs: "list[Job]", silent: Container[str], *, only: list[str] | None, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import views

        render.document(views.JobsPayload(jobs=tuple(views.job(job, silent) for job in jobs)))
        return
    from orchestrator.cli import jobrows

    if jobs or to is render.Mode.PIPE:
        jobrows.show(jobs, silent=silent, to=to, only=only)
    else:
        render.talk("No jobs. `orch submit --recipe digits` queues a small one.")


def _watch(look: "Callable[[], tuple[list[Job], Container[str]]]", only: list[str] | None) -> None:
    """Draw the list again and again, as much of it as the terminal holds."""
    from rich.console import Group
    from rich.live import Live

    from orchestrator.cli import jobrows

    console = render.console()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            jobs, silent = look()
            room = max(1, console.height - 3)
            table = render.grid(jobrows.chosen(silent, only), jobs[:room], width=console.width)
            rest = f"and {words.plural(len(jobs) - room, 'job')} more" if len(jobs) > room else ""
            live.update(Group(table, rest), refresh=True)
            time.sleep(_EVERY)
