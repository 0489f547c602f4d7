"""One node a home: who holds the lock is a node, who looks at it is none."""

import os
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path

import pytest

from orchestrator import config, draining, errors
from worker import health, presence


@pytest.fixture
def lock(settings: config.Settings) -> Path:
    presence.prepare(settings)
    return settings.run_dir / "node.lock"


def test_a_look_at_the_lock_is_no_node(settings: config.Settings, lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []
    monkeypatch.setattr(presence, "_LOOK_SECONDS", 5.0)
    draining.tell(settings, node=os.getpid(), seconds=7)  # left by one that was killed
    with lock.open("w") as looking:
        flock(looking, LOCK_SH)

        def meet(own: int, how: int) -> None:
            try:
                flock(own, how)
            except BlockingIOError:
                met.append(how)
                flock(looking, LOCK_UN)  # it has seen enough
                raise

        monkeypatch.setattr(presence, "flock", meet)
        with presence.only_one(settings):
            assert (settings.run_dir / "node.pid").read_text("ascii") == str(os.getpid())
            assert draining.seconds(settings, node=os.getpid()) == settings.drain
            draining.tell(settings, node=os.getpid(), seconds=7)
    assert met == [LOCK_EX | LOCK_NB]
    assert not (settings.run_dir / "node.pid").exists()
    assert not draining.path(settings).exists()


def test_of_two_nodes_the_second_is_refused(settings: config.Settings, lock: Path) -> None:
    with lock.open("w") as held:
        flock(held, LOCK_EX)
        with pytest.raises(errors.OrchError, match="up already"), presence.only_one(settings):
            pass


@pytest.mark.parametrize(("age", "code"), [(0, 0), (3600, 1), (-3600, 1)], ids=["now", "long ago", "clock set back"])
def test_health_is_a_beat_of_now(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, age: float, code: int
) -> None:
    patient = settings.model_copy(update={"heartbeat": 60.0})
    monkeypatch.setattr(config, "load", lambda: patient)
    presence.prepare(settings)
    health.touch(settings)
    then = time.time() - age
    os.utime(settings.run_dir / "heartbeat", (then, then))
    assert health.main() == code
