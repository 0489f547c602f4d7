"""Where `orch` begins. A shell that asks for the ids of jobs is answered at once, before Typer is imported.

That takes a tenth of a second of a person's time, and every press of the tab key would cost it. Whatever is not surely
the id of a job is left to Typer.
"""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from orchestrator import environ

#: Commands whose first word is a job, and those all of whose words are.
ONE_JOB = frozenset(
    {
        "bundle",
        "clone",
        "confusion",
        "evaluate",
        "events",
        "export",
        "logs",
        "note",
        "predict",
        "samples",
        "show",
        "status",
        "verify-resume",
        "watch",
        "why",
    }
)
MANY_JOBS = frozenset({"cancel", "compare", "delete", "extend", "pause", "plot", "resume", "retry", "tag", "wait"})

#: Objects of a command before the collector looks at them: twice those of a short one, whose imports stay to its end.
_OBJECTS = 300_000


def main() -> None:
    """Run `orch`, or answer the shell's question."""
    gc.set_threshold(_OBJECTS)
    try:
        answer = complete(os.environ)  # noqa: TID251 - the shell's question, no setting
        if answer is not None:
            sys.stdout.write(f"{answer}\n")
            return
        environ.look_for_no_plugins()
        from orchestrator.cli import main as program  # what this file is there to put off

        program.main()
    except KeyboardInterrupt:  # while it is being imported, which takes as long as many a command does
        sys.exit(130)
    except SystemExit as ended:
        _leave(ended.code or 0)
        raise
    finally:
        gc.freeze()  # or the interpreter looks at all of it once more when it ends: a fifth of a command's time


def _leave(code: str | int) -> None:
    """End the process here where all is done: to take every module apart first takes a twentieth of a command's time.

    Whatever is not as usual is left to the interpreter's own end, as is what it has to say.
    """
    if not isinstance(code, int) or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # noqa: SLF001 - what an end of the usual kind begins with, and nothing else does
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)


def complete(environment: Mapping[str, str]) -> str | None:
    """Return what the shell is to be told; None where it has not asked for the ids of jobs, or there are none."""
    shell = environment.get("_ORCH_COMPLETE", "").removeprefix("complete_")
    words = list(_words(shell, environment))
    if not words or not _is_job(words) or (shell == "fish" and "get-args" not in environment.get(_FISH, "")):
        return None
    from orchestrator.service import completion  # a command needs none of it

    home = environment.get("ORCH_HOME")
    found = list(completion.jobs(Path(home) if home else None, words[-1]))
    return _told(shell, found) if found else None


_FISH = "_TYPER_COMPLETE_FISH_ACTION"


def _words(shell: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the words behind `orch`, up to the one in work; none where they are quoted, or of another shell."""
    line = environment.get("COMP_WORDS" if shell == "bash" else "_TYPER_COMPLETE_ARGS", "")
    if shell not in {"bash", "zsh", "fish"} or any(sign in line for sign in "'\"\\$`"):
        return
    words = line.split()
    if shell == "bash":
        count = int(environment.get("COMP_CWORD", "0"))
        words = [*words, ""][: count + 1]
    elif line.endswith(" "):
        words.append("")
    yield from words[1:]


def _is_job(words: list[str]) -> bool:
    """Whether the last of the words begins the id of a job: flags may take what stands behind them."""
    command, *rest = words
    if not rest or any(word.startswith("-") for word in rest):
        return False
    return command in MANY_JOBS or (command in ONE_JOB and len(rest) == 1)


def _told(shell: str, found: Iterable[tuple[str, str]]) -> str:
    if shell == "bash":
        return "\n".join(job_id for job_id, _ in found)
    if shell == "fish":
        return "\n".join(f"{job_id}\t{' '.join(what.split())}" for job_id, what in found)
    # zsh evaluates this: a job's name, which may be anything, stays out of it.
    each = "\n".join(f'"{job_id}":"{what.partition(" ")[0]}"' for job_id, what in found)
    return f"_arguments '*: :(({each}))'"
