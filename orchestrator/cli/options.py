"""Arguments and options that several commands share, and what they open: settings and store."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import render

if TYPE_CHECKING:  # the real imports stand in the functions: help and completion must not pay for them
    from datetime import datetime

    from orchestrator.config import Settings
    from orchestrator.service.context import Context


def complete_job(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the ids that begin so, each with what is known of the job."""
    from orchestrator.service import completion

    yield from completion.jobs(context.find_root().params.get("home"), incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Complete a recipe's name."""
    from orchestrator.service import recipes

    return [name for name in recipes.names() if name.startswith(incomplete)]


JOB_HELP = "Id, a prefix of three or more characters, a name, @latest or @last-failed."

Job = Annotated[str, typer.Argument(metavar="JOB", help=JOB_HELP, autocompletion=complete_job)]
Jobs = Annotated[list[str], typer.Argument(metavar="JOB...", help=JOB_HELP, autocompletion=complete_job)]
MaybeJob = Annotated[str | None, typer.Argument(metavar="JOB", help=JOB_HELP, autocompletion=complete_job)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=complete_recipe,
        help="A recipe, as `orch recipes` lists them. Job file and flags win over it.",
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="WHICH", help="auto, one, cpu, none, or GPU numbers such as 0,2.", envvar="ORCH_DEVICES"),
]

#: Panel of the help for what a job demands of its worker.
PLACE = "Where it runs"

Device = Annotated[
    str | None,
    typer.Option(
        metavar="WHICH", rich_help_panel=PLACE, help="Only there: cpu, gpu, or a part of a GPU's name such as a100."
    ),
]
GpuMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", rich_help_panel=PLACE, help="Only GPUs with at least so much memory, such as 10GB."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LABEL", rich_help_panel=PLACE, help="Only workers with this label (ORCH_LABELS); may be given again."
    ),
]

After = Annotated[
    list[str] | None,
    typer.Option(
        metavar="JOB[:ok|any]",
        help="Wait for the success of a job, or with :any for its end, however it ends; may be given again.",
        autocompletion=complete_job,
    ),
]
NotBefore = Annotated[
    str | None, typer.Option(metavar="TIME", help="Begin no earlier: 18:00, +2h or 2026-12-24T18:00.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the job has ended, with its exit code: 0, 5 or 6.")]
Follow = Annotated[bool, typer.Option("--follow", help="Watch the job until it has ended.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show every value, the place in the queue, memory and time; queue nothing.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the id alone.")]


def given(context: Any, name: str) -> bool:
    """Whether the option was written on the command line, not taken from the environment or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def settings(context: typer.Context, **flags: Any) -> "Settings":
    """Return the settings in force; flags that are None do not count."""
    from orchestrator import config

    return config.load(**root_flags(context), **flags)


def moment(not_before: str | None) -> "datetime | None":
    """Return the moment of `--not-before`; raises UsageError where it is none."""
    from datetime import UTC, datetime

    from orchestrator.core import moments

    return None if not_before is None else moments.parse(not_before, now=datetime.now(UTC))


def root_flags(context: typer.Context) -> dict[str, Path]:
    """Return the settings that were given before the command's name."""
    root = context.find_root()
    return {"home": root.params["home"]} if given(root, "home") else {}


def opened(context: typer.Context, **flags: Any) -> "AbstractContextManager[Context]":
    """Open the settings and the store for a command."""
    from orchestrator.service import context as service

    return service.opened(settings(context, **flags))


def present(command: Callable[..., Any], function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    """Let Typer see a command that wraps a function as that function with other parameters."""
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what inspect reads


@contextmanager
def detaching(*job_ids: str) -> Iterator[None]:
    """On Ctrl-C say that the jobs go on: looking on is all that ends."""
    try:
        yield
    except KeyboardInterrupt:
        goes = "goes" if len(job_ids) == 1 else "go"
        render.talk(f"\nDetached: {', '.join(job_ids)} {goes} on. `orch cancel {' '.join(job_ids)}` would end that.")
        raise


def say_away(_: Exception) -> None:
    """Say why nothing moves while a job is followed."""
    render.note("The database is out of reach: it is waited for.")
