"""`orch delete`."""

from typing import TYPE_CHECKING

import typer

from orchestrator import errors
from orchestrator.cli import many, options, render, words
from orchestrator.core.states import JobState

if TYPE_CHECKING:
    from orchestrator.core.jobs import Job
    from orchestrator.service.context import Context
    from orchestrator.service.control import Deleted

app = typer.Typer(add_completion=False)

#: A running job has to be cancelled first.
_OF_USE = frozenset(JobState) - {JobState.RUNNING}


@app.command(
    epilog="Examples:\n\norch delete k3f9m2qa\n\norch delete --tag sweep-7 --dry-run\n\n"
    "orch delete --state failed --yes"
)
@many.flags
def delete(context: typer.Context, jobs: many.Jobs = None, *, asked: many.Asked) -> int:
    """Remove jobs and all that is known of them.

    Their rows, metrics and logs go, and so do their checkpoints: on this host at once, elsewhere by the workers there.
    A running job is refused. There is no way back, so it asks first, and needs --yes where there is no terminal.
    """
    which = asked.which(jobs)
    which.check("delete")
    with options.opened(context) as opened:
        found = which.found(opened, of_use=_OF_USE)
        if asked.dry_run:
            for job in found:
                many.show(job, as_json=asked.as_json)
            render.talk(f"{words.plural(len(found), 'job')}: nothing was deleted.")
            return 0
        if found and not asked.yes:
            many.ask("delete", found, stress=" for good")
        return _delete(opened, found, filtered=which.filtered, as_json=asked.as_json)


def _delete(opened: "Context", jobs: "list[Job]", *, filtered: bool, as_json: bool) -> int:
    """Delete each, the newest first, which may start from older ones; return 1 where one was refused, else 0."""
    from orchestrator.service import control

    gone = 0
    refused: list[errors.IllegalMove | errors.NotFound] = []
    try:
        for job in sorted(jobs, key=lambda job: job.seq, reverse=True):
            try:
                deleted = control.delete(opened.settings, opened.store, job)
            except (errors.IllegalMove, errors.NotFound) as refusal:
                if len(jobs) == 1:
                    raise
                refused.append(refusal)
            else:
                gone += 1
                _show(deleted, as_json=as_json)
    finally:  # also where it stops half-way
        if filtered:
            render.talk(f"{gone} of {words.plural(len(jobs), 'job')} deleted.")
    for error in refused:
        render.problem(error)
    return int(bool(refused))


def _show(deleted: "Deleted", *, as_json: bool) -> None:
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views

        render.json_line(views.DeletedPayload(id=deleted.job.id, left_in=deleted.left_in))
    elif to is render.Mode.PIPE:
        render.line(deleted.job.id, "deleted")
    else:
        render.console().print(f"deleted  {deleted.job.id}")
    if deleted.left_in:
        render.note(
            f"Files of {deleted.job.id} lie in {', '.join(deleted.left_in)} yet: a worker of that folder removes them."
        )
