"""One attempt of a training after the other, driven as a supervisor drives them, with a blow for each."""

import random
import signal
import time
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Literal

from orchestrator.core import specs
from tests.support import counted
from tests.unit.worker.training import support
from worker import launcher, protocol

#: Places on the way of a checkpoint to its name.
PLACES = tuple(f"checkpoint.{call}" for call in ("mkdir", "open", "write", "fsync", "rename", "folder"))

_SILENCE_SECONDS = 60.0


How = Literal["none", "step", "moment", "place", "report", "stop"]

_FIRST: tuple[How, ...] = ("step", "report")
_ANY: tuple[How, ...] = ("step", "step", "moment", "place", "report", "stop")


@dataclass(frozen=True, kw_only=True)
class Blow:
    """What happens to an attempt. `count` is a step or a checkpoint of it, from 1."""

    how: How
    count: int = 1
    seconds: float = 0
    place: str = ""

    @property
    def plan(self) -> counted.Plan:
        """The part that the process does to itself."""
        return counted.Plan(
            after_step=self.count if self.how == "step" else None,
            after_write=self.count if self.how == "report" else None,
        )


def drawn(source: random.Random, *, first: bool = False) -> Blow:
    """Return a blow at a random step or moment, in a checkpoint's write, before its report, or a drain.

    The `first` of a schedule is one that strikes for certain.
    """
    how = source.choice(_FIRST if first else _ANY)
    return Blow(
        how=how,
        count=source.randint(1, 4) if how in {"step", "stop"} else source.randint(1, 2),
        seconds=source.uniform(0, 0.3),
        place=source.choice(PLACES),
    )


@dataclass(kw_only=True)
class Attempt:
    """What one attempt said and did."""

    folder: Path
    said: support.Follower = field(default_factory=support.Follower)
    killed: bool = False

    @property
    def steps(self) -> int:
        """Steps that it did, whether anybody heard of them or not."""
        return counted.steps(self.folder)

    @property
    def resumed_at(self) -> int | None:
        """The step that it went on from, None where it died before."""
        return next((message.step for message in self.said.of(protocol.Resumed)), None)

    @property
    def ended(self) -> protocol.Ended | None:
        """How it ended by itself."""
        return next(iter(self.said.of(protocol.Ended)), None)


class Driver:
    """Trains `spec` below `root` by the fork server at `socket`, attempt by attempt."""

    def __init__(self, socket: Path, root: Path, spec: specs.JobSpec) -> None:
        self.attempts: list[Attempt] = []
        self.root = root
        self._spec = spec
        self._launcher = launcher.Launcher(socket)

    def run(self, blow: Blow) -> Attempt:
        """Do one attempt under `blow`."""
        told = support.assignment(
            self.root,
            self._spec,
            attempt=len(self.attempts) + 1,
            earlier=tuple(attempt.said for attempt in self.attempts),
        )
        attempt = Attempt(folder=Path(told.attempt_dir))
        (attempt.folder / counted.FAILPOINTS).mkdir(parents=True)
        (attempt.folder / counted.PLAN).write_text(blow.plan.model_dump_json(), encoding="utf-8")
        if blow.how == "place":
            lines = ["pass"] * (blow.count - 1) + ["kill"]  # one for each write of a checkpoint
            (attempt.folder / counted.FAILPOINTS / blow.place).write_text("\n".join(lines), encoding="ascii")
        self.attempts.append(attempt)
        with self._launcher.start(counted.ENTRY, told, log=attempt.folder / "log.txt") as process:
            _listen(process, attempt, blow)
            process.collect()
            attempt.killed = process.killed_by == signal.SIGKILL
        return attempt

    @property
    def repeated(self) -> list[int]:
        """For each attempt but the last, how many of its steps were done again."""
        resumed = [attempt.resumed_at for attempt in self.attempts]
        starts = [next((at for at in resumed[number:] if at is not None), 0) for number in range(len(resumed))]
        return [
            start + attempt.steps - following
            for attempt, start, following in zip(self.attempts[:-1], starts[:-1], starts[1:], strict=True)
        ]

    @property
    def losses(self) -> list[tuple[int, str, float]]:
        """The step losses on the winning line: of each attempt those that its successor went on from."""
        line: list[tuple[int, str, float]] = []
        for attempt in self.attempts:
            if attempt.resumed_at is not None:
                line = [row for row in line if row[0] <= attempt.resumed_at]
            line += attempt.said.steps
        return line


def _listen(process: launcher.Process, attempt: Attempt, blow: Blow) -> None:
    """Hear the process to its end, and strike it on the way."""
    asked = False
    started = heard = time.monotonic()
    while True:
        if blow.how == "stop" and not asked and attempt.steps >= blow.count:
            process.ask_to_stop()
            asked = True
        if blow.how == "moment" and time.monotonic() - started >= blow.seconds:
            process.kill()
        if not connection.wait([process.connection], timeout=0.002):
            assert time.monotonic() - heard < _SILENCE_SECONDS, f"silent: {blow}"
            continue
        try:
            message = protocol.heard(process.connection.recv_bytes())
        except (EOFError, OSError):
            return
        heard = time.monotonic()
        attempt.said.messages.append(message)
