"""`orch cancel`, `pause`, `resume`, `retry`, `extend`, `priority`, `tag`, `note`: one verb, one effect."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import many, options, render, words
from orchestrator.core.states import JobState, Reason
from orchestrator.core.verbs import OF_USE, Change, Changed, Verb

if TYPE_CHECKING:
    from orchestrator.core.jobs import Job
    from orchestrator.service.context import Context

app = typer.Typer(add_completion=False)

_MANY = "\n\norch {verb} --tag sweep-7 --dry-run\n\norch {verb} --user ada --yes"


@app.command(epilog="Examples:\n\norch cancel k3f9m2qa" + _MANY.format(verb="cancel"))
@many.flags
def cancel(context: typer.Context, jobs: many.Jobs = None, *, asked: many.Asked) -> int:
    """End jobs for good.

    A waiting job ends at once. A running one is stopped by its worker within a few seconds; its checkpoints stay.
    """
    return _steer(context, Change(verb=Verb.CANCEL), asked.which(jobs), asked)


@app.command(epilog="Examples:\n\norch pause k3f9m2qa" + _MANY.format(verb="pause"))
@many.flags
def pause(context: typer.Context, jobs: many.Jobs = None, *, asked: many.Asked) -> int:
    """Set jobs aside.

    A waiting job is paused at once. A running one writes a checkpoint at its next step and frees its device; a download
    keeps what it has fetched. Paused jobs stay so until they are resumed or cancelled.
    """
    return _steer(context, Change(verb=Verb.PAUSE), asked.which(jobs), asked)


@app.command(epilog="Examples:\n\norch resume k3f9m2qa" + _MANY.format(verb="resume"))
@many.flags
def resume(context: typer.Context, jobs: many.Jobs = None, *, asked: many.Asked) -> int:
    """Let paused jobs go on.

    Each goes on at the very step at which it was paused. A job that is still pausing simply runs on.
    """
    return _steer(context, Change(verb=Verb.RESUME), asked.which(jobs), asked)


@app.command(
    epilog="Examples:\n\norch retry @last-failed\n\norch retry --from-start k3f9m2qa\n\n"
    "orch retry --failed --reason lost --reason oom"
)
@many.flags
def retry(
    context: typer.Context,
    jobs: many.Jobs = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All failed jobs.", rich_help_panel=many.PANEL)] = False,
    reason: Annotated[
        list[Reason] | None,
        typer.Option(help="All that failed for this reason; may be given again.", rich_help_panel=many.PANEL),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget the checkpoints and train from the first epoch.")
    ] = False,
    asked: many.Asked,
) -> int:
    """Queue failed or cancelled jobs again.

    Each goes on at the stage it had reached, from its last checkpoint.
    """
    if failed or reason:
        if asked.state and asked.state != [JobState.FAILED]:
            raise errors.UsageError(
                "Give a --state, or --failed or --reason, not both.", why="Those two are about failed jobs alone."
            )
        asked = replace(asked, state=[JobState.FAILED])
    change = Change(verb=Verb.RETRY, from_start=from_start)
    return _steer(context, change, asked.which(jobs, reasons=reason), asked)


@app.command(epilog="Examples:\n\norch extend k3f9m2qa --epochs 10\n\norch extend --tag sweep-7 --epochs 20 --yes")
@many.flags
def extend(
    context: typer.Context,
    jobs: many.Jobs = None,
    *,
    epochs: Annotated[int, typer.Option(metavar="N", help="Epochs in all, the ones before included.")],
    asked: many.Asked,
) -> int:
    """Give jobs that have ended more epochs.

    Each goes on from its last checkpoint, in a new run. At a constant learning rate it ends in the same bits as a job
    that had so many epochs from the start. A schedule (step, cosine, one-cycle) and progressive sizes follow the new
    number from there on, while the epochs before followed the old one: the result is another one then.
    """
    change = Change(verb=Verb.EXTEND, epochs=epochs)
    return _steer(context, change, asked.which(jobs), asked)


@app.command(epilog="Examples:\n\norch priority k3f9m2qa 5\n\norch priority --yes --tag sweep-7 -- -2")
@many.flags
def priority(
    context: typer.Context,
    jobs_and_n: Annotated[list[str], typer.Argument(metavar="JOB... N", help="Jobs, and their new priority.")],
    *,
    asked: many.Asked,
) -> int:
    """Change the priority of jobs in the queue.

    A point is worth an hour of waiting among the jobs of one user. Between users it means nothing: they take turns.
    """
    *jobs, number = jobs_and_n
    try:
        change = Change(verb=Verb.PRIORITY, priority=int(number))
    except ValueError:
        raise errors.UsageError(
            f"{number[:20]!a} is no priority.", why="It stands last, a whole number.", hint="`orch priority JOB 5`"
        ) from None
    return _steer(context, change, asked.which(jobs), asked)


@app.command(
    epilog="Examples:\n\norch tag k3f9m2qa --add best --remove sweep-7\n\norch tag --state failed --add look-at --yes"
)
@many.flags
def tag(
    context: typer.Context,
    jobs: many.Jobs = None,
    *,
    add: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag to add; may be given again.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag to remove; may be given again.")
    ] = None,
    asked: many.Asked,
) -> int:
    """Add tags to jobs, or remove some."""
    if not add and not remove:
        raise errors.UsageError("There is no tag to add or to remove.", hint="`orch tag JOB --add NAME`")
    change = Change(verb=Verb.TAG, add=tuple(add or ()), remove=tuple(remove or ()))
    return _steer(context, change, asked.which(jobs), asked)


@app.command(epilog="Examples:\n\norch note k3f9m2qa 'the baseline of the paper'\n\norch note k3f9m2qa ''")
def note(
    context: typer.Context,
    job: options.Job,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note; an empty text removes it.")],
    as_json: options.AsJson = False,
) -> int:
    """Write a note on a job.

    `orch status` shows it, `orch events` who wrote it and when.
    """
    change = Change(verb=Verb.NOTE, note=text.strip() or None)
    return _steer(context, change, many.Which(jobs=[job]), many.Asked(as_json=as_json))


def _steer(context: typer.Context, change: Change, which: many.Which, asked: many.Asked) -> int:
    """Do it, and return the exit code: 1 where something was refused."""
    which.check(change.verb)
    with options.opened(context) as opened:
        found = which.found(opened, of_use=OF_USE[change.verb])
        if asked.dry_run:
            for job in found:
                many.show(job, as_json=asked.as_json)
            render.talk(f"{words.plural(len(found), 'job')}: nothing was changed.")
            return 0
        if which.filtered and found and not asked.yes:
            many.ask(change.verb, found)
        return _do(opened, change, found, filtered=which.filtered, as_json=asked.as_json)


def _do(opened: "Context", change: Change, found: "list[Job]", *, filtered: bool, as_json: bool) -> int:
    from orchestrator.service import many as service

    heard: list[Changed] = []
    try:
        broker = service.steer(opened.settings, opened.store, change, found, hear=heard.append)
    finally:  # what stops half-way has done a part of it
        changed = [one.job for one in heard if one.job is not None]
        _tell(change, changed, as_json=as_json)
        if filtered:
            render.talk(f"{len(changed)} of {words.plural(len(found), 'job')} changed.")
    if broker is not None:
        render.note(f"The broker is away: {broker.why} The job is kept, and workers find it by themselves.")
    refused = [one for one in heard if one.job is None]
    for one in refused:
        render.problem(errors.IllegalMove(one.refused, hint=one.hint))
    return int(bool(refused))


def _tell(change: Change, changed: "list[Job]", *, as_json: bool) -> None:
    for job in changed:
        many.show(job, as_json=as_json)
        if change.verb is Verb.EXTEND and (courses := job.spec.courses):
            render.note(f"{job.id}: {' and '.join(courses)} go by {change.epochs} epochs from here on.")
