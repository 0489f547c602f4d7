"""`orch cancel`, `pause`, `resume`, `retry`, `priority`, `tag` and `note`: one verb, one effect, on one job or many."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words
from orchestrator.core.states import JobState, Reason
from orchestrator.core.verbs import Change, Verb

if TYPE_CHECKING:
    from orchestrator.core.jobs import Job
    from orchestrator.service.context import Context

app = typer.Typer(add_completion=False)

Jobs = Annotated[
    list[str] | None, typer.Argument(metavar="JOB...", help=options.JOB_HELP, autocompletion=options.complete_job)
]
State = Annotated[
    list[JobState] | None, typer.Option(help="All jobs of this state; may be given again.", rich_help_panel="Many")
]
Tag = Annotated[list[str] | None, typer.Option(metavar="TAG", help="All jobs with this tag.", rich_help_panel="Many")]
User = Annotated[str | None, typer.Option(metavar="NAME", help="All jobs of this user.", rich_help_panel="Many")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", rich_help_panel="Many")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which jobs; change nothing.", rich_help_panel="Many")]

_MANY = "\n\norch {verb} --tag sweep-7 --dry-run\n\norch {verb} --user ada --yes"

#: More jobs than this are counted, not named, before they are confirmed.
_NAMED = 5


@app.command(epilog="Examples:\n\norch cancel k3f9m2qa" + _MANY.format(verb="cancel"))
def cancel(
    context: typer.Context,
    jobs: Jobs = None,
    state: State = None,
    tag: Tag = None,
    user: User = None,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> int:
    """End jobs for good.

    A waiting job ends at once. A running one is stopped by its worker within a few seconds; its checkpoints stay.
    """
    which = _Which(jobs=jobs, states=state, tags=tag, user=user)
    return _steer(context, Change(verb=Verb.CANCEL), which, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(epilog="Examples:\n\norch pause k3f9m2qa" + _MANY.format(verb="pause"))
def pause(
    context: typer.Context,
    jobs: Jobs = None,
    state: State = None,
    tag: Tag = None,
    user: User = None,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> int:
    """Set jobs aside.

    A waiting job is paused at once. A running one writes a checkpoint at its next step and frees its device; a download
    keeps what has come. Paused jobs stay so until they are resumed or cancelled.
    """
    which = _Which(jobs=jobs, states=state, tags=tag, user=user)
    return _steer(context, Change(verb=Verb.PAUSE), which, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(epilog="Examples:\n\norch resume k3f9m2qa" + _MANY.format(verb="resume"))
def resume(
    context: typer.Context,
    jobs: Jobs = None,
    state: State = None,
    tag: Tag = None,
    user: User = None,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> int:
    """Let paused jobs go on.

    Each goes on at the very step at which it was paused. A job that is still pausing simply runs on.
    """
    which = _Which(jobs=jobs, states=state, tags=tag, user=user)
    return _steer(context, Change(verb=Verb.RESUME), which, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(
    epilog="Examples:\n\norch retry @last-failed\n\norch retry --from-start k3f9m2qa\n\n"
    "orch retry --failed --reason lost --reason oom"
)
def retry(
    context: typer.Context,
    jobs: Jobs = None,
    state: State = None,
    tag: Tag = None,
    user: User = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All failed jobs.", rich_help_panel="Many")] = False,
    reason: Annotated[
        list[Reason] | None,
        typer.Option(help="All that failed for this reason; may be given again.", rich_help_panel="Many"),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget the checkpoints and train from the first epoch.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> int:
    """Queue failed or cancelled jobs again.

    Each goes on at the stage it had reached, from its last checkpoint.
    """
    states = [JobState.FAILED] if failed or reason else state
    which = _Which(jobs=jobs, states=states, tags=tag, user=user, reasons=reason)
    change = Change(verb=Verb.RETRY, from_start=from_start)
    return _steer(context, change, which, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(epilog="Examples:\n\norch priority k3f9m2qa 5\n\norch priority --yes --tag sweep-7 -- -2")
def priority(
    context: typer.Context,
    jobs_and_n: Annotated[list[str], typer.Argument(metavar="JOB... N", help="Jobs, and their new priority.")],
    state: State = None,
    tag: Tag = None,
    user: User = None,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> int:
    """Change the priority of jobs in the queue.

    A point is worth an hour of waiting, among the jobs of the same user: between users, turns are taken.
    """
    *jobs, number = jobs_and_n
    try:
        change = Change(verb=Verb.PRIORITY, priority=int(number))
    except ValueError:
        raise errors.UsageError(
            f"{number[:20]!a} is no priority.", why="It stands last, a whole number.", hint="`orch priority JOB 5`"
        ) from None
    which = _Which(jobs=jobs, states=state, tags=tag, user=user)
    return _steer(context, change, which, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(
    epilog="Examples:\n\norch tag k3f9m2qa --add best --remove sweep-7\n\norch tag --state failed --add look-at --yes"
)
def tag(
    context: typer.Context,
    jobs: Jobs = None,
    *,
    add: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag to add; may be given again.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag to remove.")] = None,
    state: State = None,
    tag: Tag = None,
    user: User = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> int:
    """Add tags to jobs, or remove some."""
    if not add and not remove:
        raise errors.UsageError("There is no tag to add or to remove.", hint="`orch tag JOB --add NAME`")
    change = Change(verb=Verb.TAG, add=tuple(add or ()), remove=tuple(remove or ()))
    which = _Which(jobs=jobs, states=state, tags=tag, user=user)
    return _steer(context, change, which, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(epilog="Examples:\n\norch note k3f9m2qa 'the baseline of the paper'\n\norch note k3f9m2qa ''")
def note(
    context: typer.Context,
    job: options.Job,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to note; an empty text removes it.")],
    as_json: options.AsJson = False,
) -> int:
    """Note something of a job.

    `orch status` shows it, `orch events` who noted it and when.
    """
    change = Change(verb=Verb.NOTE, note=text.strip() or None)
    return _steer(context, change, _Which(jobs=[job]), yes=True, dry_run=False, as_json=as_json)


class _Which:
    """Jobs by name, or by what they have in common."""

    def __init__(
        self,
        *,
        jobs: list[str] | None,
        states: list[JobState] | None = None,
        tags: list[str] | None = None,
        user: str | None = None,
        reasons: list[Reason] | None = None,
    ) -> None:
        self.jobs = jobs or []
        self.states, self.tags, self.user, self.reasons = states or [], tags or [], user, reasons or []
        self.filtered = bool(states or tags or user or reasons)


def _steer(context: typer.Context, change: Change, which: _Which, *, yes: bool, dry_run: bool, as_json: bool) -> int:
    """Do it, and return the exit code: 1 where something was refused."""
    if which.filtered == bool(which.jobs):
        raise errors.UsageError(
            "Name jobs, or say which ones, not both." if which.jobs else "There is no job to do it to.",
            hint=f"`orch {change.verb} JOB`, or `orch {change.verb} --tag TAG`.",
        )
    with options.opened(context) as opened:
        found = _found(opened, change, which)
        if dry_run:
            for job in found:
                _show(job, as_json=as_json)
            render.talk(f"{words.plural(len(found), 'job')}: nothing was changed.")
            return 0
        if which.filtered and found and not yes:
            _ask(change, found)
        return _do(opened, change, found, filtered=which.filtered, as_json=as_json)


def _do(opened: "Context", change: Change, found: "list[Job]", *, filtered: bool, as_json: bool) -> int:
    from orchestrator.service import many  # noqa: PLC0415 - SQLAlchemy is not for help

    done = many.steer(opened.settings, opened.store, change, found)
    for one in done.changed:
        if one.job is not None:
            _show(one.job, as_json=as_json)
    if done.broker is not None:
        render.note(f"The broker is away: {done.broker.why} The job is kept, and workers find it by themselves.")
    if filtered:
        render.talk(f"{len(done.changed) - len(done.refused)} of {words.plural(len(done.changed), 'job')} changed.")
    for one in done.refused:
        render.problem(errors.IllegalMove(one.refused, hint=one.hint))
    return int(bool(done.refused))


def _found(opened: "Context", change: Change, which: _Which) -> "list[Job]":
    from orchestrator.core.jobs import JobFilter  # noqa: PLC0415 - not for help
    from orchestrator.service import many  # noqa: PLC0415

    if which.jobs:
        return list({job.id: job for job in map(opened.store.find, which.jobs)}.values())
    wanted = JobFilter(
        states=tuple(which.states), tags=tuple(which.tags), user=which.user, reasons=tuple(which.reasons)
    )
    return many.chosen(opened.store, change, wanted)


def _ask(change: Change, jobs: "list[Job]") -> None:
    count = words.plural(len(jobs), "job")
    if not sys.stdin.isatty():
        raise errors.UsageError(
            f"Nothing was changed: this would {change.verb} {count}.",
            why="There is no terminal on which to ask.",
            hint="Add --yes, or --dry-run to see which ones.",
        )
    named = ", ".join(f"{job.id} ({job.name})" if job.name else job.id for job in jobs[:_NAMED])
    render.talk(named + (f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""))
    typer.confirm(f"{change.verb.capitalize()} {count}?", abort=True, err=True)


def _show(job: "Job", *, as_json: bool) -> None:
    from orchestrator.service import query  # noqa: PLC0415

    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.json_line(views.job(job))
    elif to is render.Mode.PIPE:
        render.line(job.id, query.doing(job))
    else:
        render.console().print(render.state(f"{query.doing(job)}  {job.id}", of=job.state))
