"""What tests find of the processes of an installation."""

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support import running
from tests.support.waiting import until


def test_a_process_that_has_got_the_pid_of_another_can_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sleep", "60"], env={"ORCH_HOME": str(tmp_path)}) as process:
        try:
            last_owner = psutil.Process(process.pid)
            vars(last_owner)["_ident"] = (process.pid, 0.0)
            monkeypatch.setitem(vars(psutil)["_pmap"], process.pid, last_owner)
            # The kernel lays out what a process was started with behind the moment at which Popen returns.
            until(lambda: running.processes_of(tmp_path))
            (found,) = running.processes_of(tmp_path)
            found.kill()
        finally:
            process.kill()
    assert running.gone(found)
