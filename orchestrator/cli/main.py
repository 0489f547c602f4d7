"""The program `orch`: its commands, each imported when it is used, and the one place where errors end."""

import errno
import importlib
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from orchestrator import errors
from orchestrator.cli import render, tidying
from orchestrator.core import states


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A command of the overview: where it is, and the first line of its help."""

    module: str
    panel: str
    summary: str


#: The exit code where nobody reads the output any more: that of a command which SIGPIPE has ended.
_UNREAD = 128 + signal.SIGPIPE

#: The exit code of Ctrl-C, also where it answers a question.
_INTERRUPTED = 128 + signal.SIGINT

_JOBS, _RESULTS, _MACHINE = "Jobs", "Results", "This machine"

COMMANDS = {
    "submit": Entry(module="submit", panel=_JOBS, summary="Queue a training job."),
    "init": Entry(module="init", panel=_JOBS, summary="Write a job file with every field at its default."),
    "status": Entry(module="status", panel=_JOBS, summary="Show everything about one job, or the queue at a glance."),
    "show": Entry(module="show", panel=_JOBS, summary="Show the spec of a job, and where each value comes from."),
    "list": Entry(module="listing", panel=_JOBS, summary="List jobs."),
    "why": Entry(module="why", panel=_JOBS, summary="Say why a job waits, and when it begins and ends."),
    "watch": Entry(module="watch", panel=_JOBS, summary="Follow a job live, with its curves."),
    "logs": Entry(module="logs", panel=_JOBS, summary="Print the output of a job's attempts."),
    "events": Entry(module="events", panel=_JOBS, summary="Print a job's history, with reasons."),
    "wait": Entry(module="wait", panel=_JOBS, summary="Wait until jobs have ended."),
    "cancel": Entry(module="steer", panel=_JOBS, summary="End jobs for good."),
    "pause": Entry(module="steer", panel=_JOBS, summary="Set jobs aside."),
    "resume": Entry(module="steer", panel=_JOBS, summary="Let paused jobs go on."),
    "retry": Entry(module="steer", panel=_JOBS, summary="Queue failed or cancelled jobs again."),
    "extend": Entry(module="steer", panel=_JOBS, summary="Give jobs that have ended more epochs."),
    "clone": Entry(module="clone", panel=_JOBS, summary="Queue a job like another one, with some fields changed."),
    "priority": Entry(module="steer", panel=_JOBS, summary="Change the priority of jobs in the queue."),
    "tag": Entry(module="steer", panel=_JOBS, summary="Add tags to jobs, or remove some."),
    "note": Entry(module="steer", panel=_JOBS, summary="Write a note on a job."),
    "delete": Entry(module="delete", panel=_JOBS, summary="Remove jobs and all that is known of them."),
    "compare": Entry(
        module="compare",
        panel=_RESULTS,
        summary="Show jobs beside each other: settings that differ, best values, curves.",
    ),
    "confusion": Entry(
        module="confusion", panel=_RESULTS, summary="Show which classes a job's network takes for which."
    ),
    "plot": Entry(module="plot", panel=_RESULTS, summary="Draw the curves of jobs in the terminal, or as a picture."),
    "predict": Entry(module="predict", panel=_RESULTS, summary="Classify pictures with the best checkpoint of a job."),
    "evaluate": Entry(
        module="evaluate",
        panel=_RESULTS,
        summary="Measure the best checkpoint of a job on other data with the same classes.",
    ),
    "verify-resume": Entry(
        module="verify",
        panel=_RESULTS,
        summary="Train a part of a job once more, and say whether the result is the same to the last bit.",
    ),
    "bundle": Entry(
        module="bundle",
        panel=_RESULTS,
        summary="Write a job into one file, to train it again elsewhere and compare the results.",
    ),
    "reproduce": Entry(
        module="bundle",
        panel=_RESULTS,
        summary="Train the job of a bundle here, and say whether the result is the same.",
    ),
    "export": Entry(
        module="export",
        panel=_RESULTS,
        summary="Write the best checkpoint of a job for other programs, with its preprocessing and a model card.",
    ),
    "recipes": Entry(
        module="recipes", panel=_RESULTS, summary="List the recipes that a job can name, or print one as a job file."
    ),
    "models": Entry(
        module="models", panel=_RESULTS, summary="List the networks that a job can name, and what each costs."
    ),
    "samples": Entry(
        module="samples", panel=_RESULTS, summary="Show validation pictures, and what a job's network takes them for."
    ),
    "schema": Entry(module="schema", panel=_RESULTS, summary="Print the JSON Schema of job files, for editors."),
    "up": Entry(module="up", panel=_MACHINE, summary="Start broker, database and worker on this machine."),
    "down": Entry(module="up", panel=_MACHINE, summary="Drain the worker of this machine and stop its broker."),
    "demo": Entry(module="demo", panel=_MACHINE, summary="Train the packaged sample, from submit to prediction."),
    "top": Entry(module="top", panel=_MACHINE, summary="Show workers, their slots and the jobs in them, live."),
    "worker": Entry(module="worker", panel=_MACHINE, summary="Run a worker in the foreground, or steer workers."),
    "data": Entry(
        module="data",
        panel=_MACHINE,
        summary="Keep the data sets of this host: jobs share them, and fetch what is missing.",
    ),
    "db": Entry(module="db", panel=_MACHINE, summary="Upgrade or check the database."),
    "gc": Entry(
        module="gc",
        panel=_MACHINE,
        summary="Remove what nobody needs any more on this host, and say how much room that makes.",
    ),
    "backup": Entry(
        module="backup",
        panel=_MACHINE,
        summary="Write the database and the checkpoints of this installation into one file, while workers run.",
    ),
    "restore": Entry(
        module="backup",
        panel=_MACHINE,
        summary="Put a backup into an installation that has no jobs: another home, or an empty database.",
    ),
    "doctor": Entry(module="doctor", panel=_MACHINE, summary="Find out what is missing or broken."),
    "help": Entry(
        module="help", panel=_MACHINE, summary="Explain data, recipes, states, exit codes, settings, files or devices."
    ),
    "config": Entry(module="config", panel=_MACHINE, summary="Show the settings in force."),
}


class LazyGroup(TyperGroup):
    """Imports a command when it is run, or when its flags are completed; its overview imports none."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the real command in the place of its summary."""
        if args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": tidying.HELP_FLAGS},
    epilog="Begin with `orch demo`, or with `orch up -d` and `orch submit --recipe digits`.",
)


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of everything orch keeps on this host.", envvar="ORCH_HOME"),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Queue DenseNet training jobs and always know where each one stands."""
    del debug  # read where it is needed: main
    source: Any = context.get_parameter_source("home")
    render.address(home if source.name == "COMMANDLINE" else None)
    if version:
        from importlib import metadata

        sys.stdout.write(f"orch {metadata.version('orch')}\n")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def load(name: str) -> Any:
    """Return the real command called `name`."""
    command = get_command(importlib.import_module(f"orchestrator.cli.{COMMANDS[name].module}").app)
    if isinstance(command, TyperGroup):
        command = command.commands.get(name, command)
    command.name = name
    _share_readers(command)
    return tidying.tidied(command)


def program() -> Any:
    """Return the whole program, a summary in the place of each command."""
    group = tidying.tidied(get_command(app))
    if not isinstance(group, LazyGroup):
        raise TypeError(group)
    for name, entry in COMMANDS.items():
        group.add_command(TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel))
    return group


def _share_readers(command: Any) -> None:
    """Let all options of plain text be read by one: Typer makes one for each, which takes a twentieth of a submit."""
    texts = [option for option in command.params if option.type_descriptor.annotation is str]
    for option in texts:
        option._runtime_param = texts[0].get_runtime_param()  # noqa: SLF001 - there is no other way to give it one


def main() -> None:
    """Run `orch` and exit with the code of what happened."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug=len(arguments) < len(sys.argv) - 1))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command line and return its exit code; the one place where errors end."""
    _open_what_is_closed()
    _never_fail_to_encode()
    try:
        code = program().main(arguments, prog_name="orch", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as ended:  # Typer's answer to a pipe that closed, with the code of a failure
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        return _UNREAD
    except Exception as error:
        if debug:
            raise
        return _end(error)
    return code if isinstance(code, int) else 0


def _end(error: Exception) -> int:
    """Say what happened and return the exit code."""
    match error:
        case errors.OrchError():
            explained = error
        case typer.TyperException():  # what Typer says of the command line itself
            explained = _usage(error)
        case typer.Abort():
            render.problem(errors.OrchError("Aborted."))
            return _INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else 1
        case BrokenPipeError():  # whoever closed the pipe has seen enough
            _lose_output()
            return _UNREAD
        case OSError():
            explained = _refused(error)
        case _:
            explained = _defect(error)
    if explained.message:
        render.problem(explained)
    return explained.exit_code


def _refused(error: OSError) -> errors.OrchError:
    """Return what the system would not do: of a file that it names that is no fault of the program."""
    if error.filename is not None:
        return errors.OrchError(f"{error.filename} cannot be used.", why=error.strerror)
    if error.errno == errno.ENOSPC:
        _lose_output()
        return errors.OrchError("The output cannot be written.", why=error.strerror)
    if error.errno == errno.ENOENT:  # of getcwd(3)
        return errors.OrchError("The working folder is gone.", hint="cd to one that is there.")
    return _defect(error)


def _usage(error: typer.TyperException) -> errors.OrchError:
    context, near = getattr(error, "ctx", None), getattr(error, "possibilities", None)
    message = " ".join((error.message if near else error.format_message()).split()).replace(": Value error, ", ": ")
    if message and not message.endswith((".", "?")):
        message += "."
    usage = errors.UsageError(
        message,
        why=f"Did you mean {' or '.join(near)}?" if near else _meant(message),
        hint=f"{context.command_path} --help" if context else None,
    )
    usage.message = message  # empty for a group without a command: its help is printed already
    return usage


#: What Typer says of a word that is none of those to choose from.
_NOT_ONE_OF = re.compile(r": '(?P<word>[^']*)' is not one of (?P<known>'.*')\.$")


def _meant(message: str) -> str | None:
    """Return which of the known words was meant, where that can be guessed."""
    found = _NOT_ONE_OF.search(message)
    if found is None:
        return None
    word, known = found["word"].lower(), re.findall(r"'([^']*)'", found["known"])
    if states.JobState.RUNNING in known and word in states.WHILE_RUNNING:
        return f"A job that is {word} is in the state {states.JobState.RUNNING}."
    from orchestrator.core import spelling

    close = spelling.close(word, known)
    return f"Did you mean {close}?" if close else None


def _defect(error: Exception) -> errors.OrchError:
    said = str(error).strip().splitlines()
    return errors.OrchError(
        "This is a defect in orch.",
        why=f"{type(error).__name__}: {said[0]}" if said else type(error).__name__,
        hint="Run it again with --debug, and report the traceback.",
    )


def _lose_output() -> None:
    """Let what is still buffered go nowhere at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_what_is_closed() -> None:
    """Stand in for a stream that a shell's `>&-` has closed: Python has None there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the program


def _never_fail_to_encode() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
