"""`orch delete`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words
from orchestrator.core.jobs import Job

if TYPE_CHECKING:
    from orchestrator.service.control import Deleted

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:\n\norch delete k3f9m2qa")
def delete(
    context: typer.Context,
    jobs: options.Jobs,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove jobs and all that is known of them.

    Their rows, metrics and logs go, and so do their checkpoints: on this host at once, elsewhere by the workers there.
    A running job is refused.
    """
    from orchestrator.service import control  # noqa: PLC0415 - SQLAlchemy is not for help

    with options.opened(context) as opened:
        found = list({job.id: job for job in map(opened.store.find, jobs)}.values())
        if not yes:
            _ask(found)
        for job in found:
            _show(control.delete(opened.settings, opened.store, job), as_json=as_json)


def _ask(jobs: Sequence[Job]) -> None:
    named = ", ".join(f"{job.id} ({job.state}{f', {job.name}' if job.name else ''})" for job in jobs)
    if not sys.stdin.isatty():
        raise errors.UsageError(
            f"Nothing was deleted: {words.plural(len(jobs), 'job')} would go for good.",
            why="There is no terminal on which to ask.",
            hint=f"`orch delete --yes {' '.join(job.id for job in jobs)}`",
        )
    render.talk(named)
    typer.confirm(f"Delete {words.plural(len(jobs), 'job')} for good?", abort=True, err=True)


def _show(deleted: "Deleted", *, as_json: bool) -> None:
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.json_line(views.DeletedPayload(id=deleted.job.id, left_in=deleted.left_in))
    elif to is render.Mode.PIPE:
        render.line(deleted.job.id, "deleted")
    else:
        render.console().print(f"deleted  {deleted.job.id}")
    if deleted.left_in:
        render.note(
            f"Files of {deleted.job.id} lie in {', '.join(deleted.left_in)} yet: a worker of that folder removes them."
        )
