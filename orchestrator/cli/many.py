"""Jobs that a command is about: named, or by what they have in common, counted and confirmed."""

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words
from orchestrator.core.states import JobState, Reason

if TYPE_CHECKING:
    from orchestrator.core.jobs import Job
    from orchestrator.service.context import Context

Jobs = Annotated[
    list[str] | None, typer.Argument(metavar="JOB...", help=options.JOB_HELP, autocompletion=options.complete_job)
]

#: The panel of the help that flags about many jobs stand under.
PANEL = "Many jobs"

#: More jobs than this are counted, not named, before they are confirmed.
_NAMED = 5


class Which:
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

    def check(self, verb: str) -> None:
        """Raise `UsageError` unless jobs are either named or described."""
        if self.filtered == bool(self.jobs):
            raise errors.UsageError(
                "Name jobs, or say which ones, not both." if self.jobs else "There is no job to do it to.",
                hint=f"`orch {verb} JOB`, or `orch {verb} --tag TAG`.",
            )

    def found(self, opened: "Context", *, of_use: Iterable[JobState]) -> "list[Job]":
        """Return the jobs; where only a tag or a user describes them, those in states `of_use`."""
        from orchestrator.core.jobs import JobFilter
        from orchestrator.service import many

        if self.jobs:
            return list({job.id: job for job in map(opened.store.find, self.jobs)}.values())
        wanted = JobFilter(
            states=tuple(self.states), tags=tuple(self.tags), user=self.user, reasons=tuple(self.reasons)
        )
        return many.chosen(opened.store, wanted, of_use=of_use)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the flags say that every verb on many jobs has."""

    state: Annotated[
        list[JobState] | None, typer.Option(help="All jobs of this state; may be given again.", rich_help_panel=PANEL)
    ] = None
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="All jobs with this tag; given again, with all of them.", rich_help_panel=PANEL
        ),
    ] = None
    user: Annotated[str | None, typer.Option(metavar="NAME", help="All jobs of this user.", rich_help_panel=PANEL)] = (
        None
    )
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether to do it.", rich_help_panel=PANEL)] = (
        False
    )
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the jobs; change nothing.", rich_help_panel=PANEL)
    ] = False
    as_json: options.AsJson = False

    def which(self, jobs: list[str] | None, *, reasons: list[Reason] | None = None) -> Which:
        """Return the jobs that are meant."""
        return Which(jobs=jobs, states=self.state, tags=self.tag, user=self.user, reasons=reasons)


def flags(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the flags that every verb on many jobs has; they arrive in its argument `asked`."""
    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "asked"]
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Asked)
    ]

    def command(**arguments: Any) -> int:
        asked = Asked(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
        return function(**arguments, asked=asked)

    options.present(command, function, [*own, *shared])
    return command


def ask(verb: str, jobs: "Sequence[Job]", *, stress: str = "") -> None:
    """Ask on a terminal whether to do it to these jobs; raises `UsageError` where there is none."""
    count = words.plural(len(jobs), "job")
    if not sys.stdin.isatty():
        raise errors.UsageError(
            f"Nothing was changed: this would {verb} {count}.",
            why="There is no terminal on which to ask.",
            hint="Add --yes, or --dry-run to see which ones.",
        )
    named = ", ".join(f"{job.id} ({job.state}{f', {job.name}' if job.name else ''})" for job in jobs[:_NAMED])
    render.talk(named + (f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""))
    typer.confirm(f"{verb.capitalize()} {count}{stress}?", abort=True, err=True)


def show(job: "Job", *, as_json: bool) -> None:
    """Say where a job stands."""
    from orchestrator.service import query

    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views

        render.json_line(views.job(job))
    elif to is render.Mode.PIPE:
        render.line(job.id, query.doing(job))
    else:
        render.console().print(render.state(f"{query.doing(job)}  {job.id}", of=job.state))
