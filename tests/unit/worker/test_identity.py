import dataclasses
import subprocess
import sys

import psutil
import pytest

from orchestrator.core import jobs
from tests.support.waiting import until
from worker import identity

ME = identity.mine("me")


def test_this_process_lives_under_a_new_name_each_time() -> None:
    assert identity.alive(ME)
    assert ME.id.startswith("me-")
    assert identity.mine("me").id != ME.id


def test_a_clock_that_is_set_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel's boot time, from which wall times of processes are reckoned, follows the clock.
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 0.0)
    assert identity.alive(ME)


def test_a_pid_that_was_given_to_another_process_is_no_worker() -> None:
    assert not identity.alive(dataclasses.replace(ME, pid_started=ME.pid_started - 1))


def test_a_process_that_has_ended_is_dead_also_before_its_parent_has_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        _, started = identity._state_and_start(process.pid)
        worker = dataclasses.replace(ME, pid=process.pid, pid_started=started)
        assert identity.alive(worker)
        process.kill()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert not identity.alive(worker)
        process.wait()
        assert not identity.alive(worker)


@pytest.mark.parametrize(
    "elsewhere", [dataclasses.replace(ME, boot_id="another"), dataclasses.replace(ME, pid_namespace="another")]
)
def test_whoever_lives_in_another_machine_or_container_of_that_name_is_left_to_its_lease(
    elsewhere: jobs.WorkerIdentity,
) -> None:
    assert identity.alive(dataclasses.replace(elsewhere, pid=2**22 + 1))
