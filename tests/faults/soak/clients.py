"""A client of the soak: a process that submits, steers and looks, and writes down durably what it was told.

Every command runs in a child of its own that has the command line imported already. Some children are killed in the
middle: such a command has told nothing, and a submit is repeated under the same idempotency key.
"""

import argparse
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from orchestrator.cli import main as cli
from orchestrator.core import states
from orchestrator.service import bell, context, control, query, submit, views  # noqa: F401 - for the children

#: Seconds until a submit that failed is repeated; the database may be away for a while.
_RETRY_SECONDS = 0.3

_DATABASE_AWAY = 4

#: Jobs of one client that have not ended, and seconds between its looks at the oldest of them.
_MOST_OPEN = 6
_LOOK_SECONDS = 3

#: What jobs are beside usual, and how often: preemptible, urgent, or on both devices of a node.
_FLAGS = {(): 3, ("--preemptible",): 6, ("--priority", "5"): 2, ("--gpus", "2", "--batch-size", "4"): 2}


@dataclass(frozen=True, kw_only=True)
class Told:
    """One command: what was asked, and what a person would have read."""

    at: float  #: seconds since the epoch
    asked: str  #: submit, cancel, retry, pause, resume, status
    job: str | None  #: id that was named or printed
    key: str | None = None
    code: int | None = None  #: exit code; None where the command was killed
    state: str | None = None  #: the word behind the id
    results: tuple[str, ...] = ()  #: lines of `status` that stand for ever: epochs and the evaluation


class Client:
    """One person at one terminal."""

    def __init__(self, name: str, spec: str, history: IO[str], dice: random.Random, *, kill_share: float) -> None:
        self._name = name
        self._spec = spec
        self._history = history
        self._dice = dice
        self._kill_share = kill_share
        self._mine: list[str] = []
        self._open: list[str] = []  #: those that had not ended when it looked

    def run(self, count: int) -> None:
        """Submit `count` jobs, doing something else to earlier ones now and then, and wait where many are open."""
        for number in range(count):
            self._submit(f"{self._name}-{number}")
            if self._dice.random() < 0.5:
                asked = self._dice.choices(("status", "cancel", "retry", "pause"), (4, 2, 1, 1))[0]
                self._do(asked, self._dice.choice(self._mine))
            while len(self._open) > _MOST_OPEN:
                time.sleep(_LOOK_SECONDS)
                self._look(self._open[0])

    def _look(self, job: str) -> None:
        """See how a job is doing, and let it go on where a command that should have done so was killed."""
        state = self._ask("status", job, job=job).state
        if state in states.FINAL:
            self._open.remove(job)
        elif state == states.JobState.PAUSED:
            self._ask("resume", job, job=job)

    def _submit(self, key: str) -> None:
        flags = self._dice.choices(list(_FLAGS), list(_FLAGS.values()))[0]
        while True:
            told = self._ask("submit", self._spec, *flags, "--idempotency-key", key, key=key)
            if told.code == 0 and told.job is not None:
                self._mine.append(told.job)
                self._open.append(told.job)
                return
            if told.code not in {None, _DATABASE_AWAY}:
                raise SystemExit(f"submit ended with code {told.code}")
            time.sleep(_RETRY_SECONDS)

    def _do(self, asked: str, job: str) -> None:
        self._ask(asked, job, job=job)
        if asked == "pause":
            self._ask("resume", job, job=job)

    def _ask(self, asked: str, *words: str, job: str | None = None, key: str | None = None) -> Told:
        code, said = _command([asked, *words], self._kill_after())
        lines = said.splitlines() if code == 0 else []
        fields = [line.split("\t") for line in lines]
        state = next((field[2] for field in fields if field[:2] == ["job", "state"]), None)
        told = Told(
            at=time.time(),
            asked=asked,
            job=fields[0][0] if fields and asked == "submit" else job,
            key=key,
            code=code,
            state=state if asked == "status" else next((field[1] for field in fields if len(field) > 1), None),
            results=results(lines),
        )
        self._history.write(json.dumps(asdict(told)) + "\n")
        self._history.flush()
        os.fsync(self._history.fileno())
        return told

    def _kill_after(self) -> float | None:
        return self._dice.uniform(0, 0.4) if self._dice.random() < self._kill_share else None


def read(path: Path) -> list[Told]:
    """Return what a client has written down."""
    entries = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Told(**{**entry, "results": tuple(entry["results"])}) for entry in entries]


def results(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of `status` that tell of a result."""
    return tuple(line for line in lines if line.startswith(("epoch\t", "evaluation\t", "class\t")))


def _command(words: list[str], kill_after: float | None) -> tuple[int | None, str]:
    """Run a command line in a child; return its exit code (None where it was killed) and its output."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(words, into)
    os.close(into)
    deadline = None if kill_after is None else time.monotonic() + kill_after
    said = b""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([out], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            break
        piece = os.read(out, 65536)
        if not piece:
            break
        said += piece
    _, status = os.waitpid(pid, 0)
    while select.select([out], [], [], 0)[0] and (piece := os.read(out, 65536)):  # of one that ended just before
        said += piece
    os.close(out)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None, said.decode()


def _become(words: list[str], into: int) -> NoReturn:
    code = 1
    try:
        sys.stdout = os.fdopen(into, "w")
        code = cli.run(words)
    except BaseException:  # noqa: BLE001 - a child ends here, whatever happens
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Be a client; the settings come from the environment."""
    parser = argparse.ArgumentParser()
    for name, kind in (("name", str), ("spec", str), ("history", Path), ("seed", str), ("jobs", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--kill-share", type=float, default=0.1)
    given: Any = parser.parse_args()
    with given.history.open("a", encoding="utf-8") as history:
        dice = random.Random(given.seed)  # noqa: S311 - to be repeated, not to be secret
        client = Client(given.name, given.spec, history, dice, kill_share=given.kill_share)
        client.run(given.jobs)


if __name__ == "__main__":
    main()
