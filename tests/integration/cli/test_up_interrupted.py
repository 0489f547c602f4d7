"""Ctrl-C while `orch up` starts a node: nothing is half done, and no process is left behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import config
from tests.integration.cli.test_edge import ORCH
from tests.support import running
from tests.support.waiting import until


@pytest.mark.parametrize("moment", ["before", "at the start", "during its imports"])
def test_a_detached_node_that_is_not_up_yet_goes_with_the_command(tmp_path: Path, moment: str) -> None:
    settings = config.Settings(home=tmp_path / "home", lock_dir=tmp_path / "locks", devices="cpu")
    points = tmp_path / "failpoints"
    points.mkdir()
    place = "up.log" if moment == "before" else "up.start"
    (points / place).write_text("pass" if moment == "during its imports" else "hold", encoding="ascii")
    (points / "node.mkdir").write_text("hold", encoding="ascii")  # directly behind its imports
    with subprocess.Popen(
        [*ORCH, "up", "-d"],
        env=config.child_environment(settings, ORCH_TEST_FAILPOINTS=str(points)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as starting:
        until((points / f"{place}.fired").exists)
        if moment == "during its imports":
            until(lambda: running.named(settings.home, "worker"))
        starting.send_signal(signal.SIGINT)
        if moment == "at the start":
            with pytest.raises(subprocess.TimeoutExpired):  # it waits for the node's process, to take it along
                starting.wait(0.5)
            (points / f"{place}.go").touch()
        printed, said = starting.communicate(timeout=60)
    assert (starting.returncode, printed) == (130, "")
    assert "Nothing was started" in said
    assert "Traceback" not in said
    assert running.processes_of(settings.home) == []


def test_a_node_that_is_still_imported_ends_without_a_traceback(tmp_path: Path) -> None:
    script = (
        "import os, runpy, signal, sys\n"
        "class Hit:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'redis':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hit())\n"
        "runpy.run_module('worker', run_name='__main__')\n"
    )
    env = config.child_environment(config.Settings(home=tmp_path / "home"))
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
