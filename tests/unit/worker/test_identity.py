import dataclasses
import subprocess
import sys
from fcntl import flock
from pathlib import Path
from typing import IO

import psutil
import pytest

from orchestrator.core import jobs
from tests.support.waiting import until
from worker import identity

ME = identity.mine("me")
NOWHERE = Path("/nonexistent")


def test_this_process_lives_under_a_new_name_each_time() -> None:
    assert identity.alive(ME, living=NOWHERE)
    assert ME.id.startswith("me-")
    assert identity.mine("me").id != ME.id


def test_a_clock_that_is_set_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel's boot time, from which wall times of processes are reckoned, follows the clock.
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 0.0)
    assert identity.alive(ME, living=NOWHERE)


def test_a_pid_that_was_given_to_another_process_is_no_worker() -> None:
    assert not identity.alive(dataclasses.replace(ME, pid_started=ME.pid_started - 1), living=NOWHERE)


def test_a_process_that_has_ended_is_dead_also_before_its_parent_has_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        _, started = identity._state_and_start(process.pid)
        worker = dataclasses.replace(ME, pid=process.pid, pid_started=started)
        assert identity.alive(worker, living=NOWHERE)
        process.kill()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert not identity.alive(worker, living=NOWHERE)
        process.wait()
        assert not identity.alive(worker, living=NOWHERE)


@pytest.mark.parametrize(
    "elsewhere", [dataclasses.replace(ME, boot_id="another"), dataclasses.replace(ME, pid_namespace="another")]
)
def test_whoever_lives_in_another_machine_or_container_of_that_name_is_left_to_its_lease(
    elsewhere: jobs.WorkerIdentity,
) -> None:
    assert identity.alive(dataclasses.replace(elsewhere, pid=2**22 + 1), living=NOWHERE)


def test_a_worker_of_an_earlier_boot_is_dead_where_its_lock_in_this_home_is_free(tmp_path: Path) -> None:
    earlier = dataclasses.replace(ME, boot_id="before the restart")
    with identity.held(tmp_path, ME.id):
        assert identity.alive(earlier, living=tmp_path)
        lock = next(tmp_path.iterdir())
        left_behind = lock.read_bytes()
    assert list(tmp_path.iterdir()) == []  # who goes in peace leaves nothing
    lock.write_bytes(left_behind)
    assert not identity.alive(earlier, living=tmp_path)
    identity.forget_the_dead(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from worker import identity\n"
        "with identity.held(Path(sys.argv[1]), 'other'):\n    print('held', flush=True); sys.stdin.read()"
    )
    earlier = dataclasses.replace(ME, id="other", pid_namespace="another")
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert identity.alive(earlier, living=tmp_path)
        process.kill()
        process.wait()
    assert not identity.alive(earlier, living=tmp_path)


def test_a_node_whose_lock_another_takes_for_a_dead_ones_makes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(file: IO[str], how: int) -> None:
        monkeypatch.setattr(identity, "flock", flock)
        assert len(identity.forget_the_dead(tmp_path)) == 1  # it has been made, and is not held yet
        flock(file, how)

    monkeypatch.setattr(identity, "flock", late)
    with identity.held(tmp_path, "other") as name:
        assert identity.forget_the_dead(tmp_path) == []
        assert [path.name for path in tmp_path.iterdir()] == [name]
