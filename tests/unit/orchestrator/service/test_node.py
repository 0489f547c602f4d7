"""Which node is up, by its lock and the pid file that it writes behind it."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import config, errors
from orchestrator.service import node


@pytest.fixture
def lock(settings: config.Settings) -> Iterator[None]:
    """A node that has its lock and no pid file yet."""
    settings.run_dir.mkdir(parents=True)
    with (settings.run_dir / "node.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.mark.usefixtures("lock")
def test_a_node_that_was_faster_may_say_its_pid_a_moment_later(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def read(path: Path) -> int | None:
        looks.append(path)
        return os.getpid() if len(looks) > 2 else None

    monkeypatch.setattr(node, "_read_pid", read)
    assert node._seen(settings) == os.getpid()


@pytest.mark.usefixtures("lock")
def test_who_holds_the_lock_and_is_no_node_is_not_waited_for_for_long(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_PID_SECONDS", 0.1)
    assert node._seen(settings) is None


def test_without_a_lock_there_is_no_node_whatever_the_pid_file_says(settings: config.Settings) -> None:
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "node.pid").write_text("7")
    assert node._seen(settings) is None


@pytest.mark.usefixtures("lock")
def test_a_number_that_is_another_process_s_is_no_node_and_is_not_stopped(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_PID_SECONDS", 0.1)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process that is no node was sent a signal"))
    for number in (os.getppid(), 2**22 + 1):  # one that lives, as seen from another container, and one that cannot be
        (settings.run_dir / "node.pid").write_text(str(number))
        with pytest.raises(errors.OrchError, match="not seen from here"):
            node.stop(settings)
