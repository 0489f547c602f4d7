import errno
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import until
from worker.children import Child


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `probe` that writes its first line of input to a file, and ends with its input."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "probe.py").write_text(
        "import os, sys\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()} {os.getsid(0)} {sys.stdin.readline()}')\n"
        "sys.stdin.read()\n",
        encoding="utf-8",
    )
    return tmp_path


def _child(folder: Path, monotonic: Callable[[], float] = time.monotonic) -> Child:
    environment, arguments = {"PYTHONPATH": str(folder)}, [str(folder / "said")]
    return Child(
        "probe", "probe", environment=environment, arguments=arguments, first_line="the plan", monotonic=monotonic
    )


def _said(folder: Path) -> list[list[str]]:
    path = folder / "said"
    return [line.split(" ", 2) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_a_child_gets_its_plan_in_a_session_of_its_own(module: Path) -> None:
    child = _child(module)
    child.start()
    until(lambda: _said(module))
    ((pid, session, plan),) = _said(module)
    assert (int(pid), pid, plan) == (child.pid, session, "the plan")
    child.ask_to_stop()
    assert child.wait(time.monotonic() + 60)


def test_a_child_that_died_is_started_again(module: Path) -> None:
    child = _child(module)
    child.start()
    until(lambda: _said(module))
    child.ask_to_stop()
    until(lambda: not child.running)

    def two_lives() -> bool:
        child.keep()
        return len(_said(module)) == 2

    until(two_lives)
    child.ask_to_stop()
    child.wait(time.monotonic() + 60)


def test_a_child_that_keeps_dying_is_started_ever_more_rarely(tmp_path: Path) -> None:
    now = [0.0]
    child = Child("no such", "no_such_module", environment={"PYTHONPATH": str(tmp_path)}, monotonic=lambda: now[0])
    starts = []
    for _ in range(200):
        before = child.pid
        child.keep()
        if child.pid not in {before, None}:
            starts.append(now[0])
            until(lambda: not child.running)
        now[0] += 0.1
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    assert len(pauses) >= 3
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 4 * pauses[0]


def test_a_child_that_cannot_be_started_is_tried_again_later(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    child = _child(module, lambda: now[0])
    with monkeypatch.context() as no_memory:
        no_memory.setattr(subprocess, "Popen", _refuse)
        child.keep()
    child.keep()
    assert child.pid is None
    now[0] += 1
    child.keep()
    assert child.running
    child.ask_to_stop()
    child.wait(now[0] + 60)


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def test_a_child_that_does_not_go_is_killed_at_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'w').close()\n"
        "while True: signal.pause()\n",
        encoding="utf-8",
    )
    ready = tmp_path / "ready"
    child = Child("deaf", "deaf", environment={"PYTHONPATH": str(tmp_path)}, arguments=[str(ready)])
    child.start()
    until(ready.exists)
    child.ask_to_stop()
    assert not child.wait(time.monotonic() + 0.2)
    assert child.pid is None


def test_children_run_this_interpreter(module: Path) -> None:
    assert _child(module)._command[0] == sys.executable
