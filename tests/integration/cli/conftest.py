"""The command line in this process, on a home of its own."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from orchestrator import config
from orchestrator.cli import main
from orchestrator.core import jobs, states
from tests.contract import parts


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The fields of each line of the output."""
        return [line.split("\t") for line in self.out.splitlines()]


Orch = Callable[..., Ran]


def living_worker() -> jobs.Worker:
    """Return a worker with a CPU, heard of just now."""
    now = datetime.now(UTC)
    return jobs.Worker(
        identity=parts.identity(),
        state=states.WorkerState.ACTIVE,
        devices=("CPU",),
        versions={"orch": "0.1.0"},
        artifact_root=None,
        started_at=now,
        beat=0,
        beat_at=now,
    )


@pytest.fixture
def orch(settings: config.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Orch:
    """Run a command line as a pipe would see it; `stdin` is what it reads there."""
    for name in ("home", "lock_dir", "user"):
        monkeypatch.setenv(config.variable(name), str(getattr(settings, name)))

    def run(*words: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main.run(list(words))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run
