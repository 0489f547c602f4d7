"""The command line in this process, on a home of its own."""

import io
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import config
from orchestrator.cli import main
from orchestrator.core import clock, jobs, states
from orchestrator.queue import dispatch  # noqa: F401 - or each command that rings imports it where it forks to
from orchestrator.service import bell
from orchestrator.store import sql
from tests.contract import parts
from tests.support import running


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


def living_worker(**fields: Any) -> jobs.Worker:
    """Return a worker with a CPU."""
    now = datetime.now(UTC)
    return jobs.Worker(
        **{
            "identity": parts.identity(),
            "state": states.WorkerState.ACTIVE,
            "devices": ("CPU",),
            "versions": {"orch": "0.1.0"},
            "artifact_root": None,
            "started_at": now,
            "beat": 0,
            "beat_at": now,
            **fields,
        }
    )


def heard_of(settings: config.Settings, *, seconds_ago: float = 0, **fields: Any) -> None:
    """Register a worker that has been heard of so long ago, by the machine's clock, which a command reads."""

    class Then(clock.SystemClock):
        def now(self) -> datetime:
            return super().now() - timedelta(seconds=seconds_ago)

    with closing(sql.open_store(settings, clock=Then())) as store:
        store.register(living_worker(**fields))


@pytest.fixture
def orch(settings: config.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Orch:
    """Run a command line as a pipe would see it; `stdin` is what it reads there."""
    for name in ("home", "lock_dir", "user"):
        monkeypatch.setenv(config.variable(name), str(getattr(settings, name)))
    monkeypatch.setattr(bell, "PATIENCE", 60)  # what the broker says is asked for, not how slow the machine is

    def run(*words: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main.run(list(words))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


OrchIn = Callable[[running.Installation], Orch]


@pytest.fixture
def orch_in(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> OrchIn:
    """Return the command line of an installation, in this process, which checks its exit code."""

    def run(*words: str, code: int = 0) -> Ran:
        ran = orch(*words)
        assert ran.code == code, f"orch {' '.join(words)} → {ran.code}\n{ran.out}\n{ran.err}"
        return ran

    def inside(installed: running.Installation) -> Orch:
        for name, value in installed.environment.items():
            monkeypatch.setenv(name, value)
        return run

    return inside
