"""`orch down`: what it tells the node, and what it says of the jobs that the node had."""

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator import config, draining
from orchestrator.core import states
from orchestrator.service import node
from orchestrator.store import base, engine, migrations
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from tests.migration.conftest import make
from tests.support.waiting import until
from worker import identity, presence

#: Holds the home's lock like a node and goes at the first signal.
_NODE = """
import fcntl, pathlib, os, signal, sys
run = pathlib.Path(sys.argv[1])
lock = (run / "node.lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
(run / "node.pid").write_text(str(os.getpid()))
signal.pause()
"""


@pytest.fixture
def at_work(settings: config.Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """Return what passes for a node."""
    presence.prepare(settings)
    with subprocess.Popen([sys.executable, "-c", _NODE, settings.run_dir]) as process:
        try:
            until(lambda: node.pid(settings) == process.pid)
            yield process
        finally:
            process.kill()


def _claimed(store: base.Store, pid: int) -> None:
    """Let a worker with this pid hold a job."""
    parts.submit(store)
    me = dataclasses.replace(identity.mine(None), pid=pid)
    now = store.time()
    store.register(parts.worker(me, now=now))
    assert store.claim(worker=me, device="CPU", stages=[states.Stage.DOWNLOAD], artifact_root="root")


def test_it_tells_the_node_its_deadline_and_how_many_jobs_did_not_save_all(
    orch: Orch, settings: config.Settings, store: base.Store, at_work: "subprocess.Popen[bytes]"
) -> None:
    _claimed(store, at_work.pid)
    ran = orch("down", "--timeout", "300")
    assert ran.code == 0
    assert draining.seconds(settings, node=at_work.pid) == 300
    assert "1 job had not saved all" in ran.err
    assert "has drained" not in ran.err


@pytest.mark.usefixtures("store")
def test_a_node_without_jobs_has_drained(
    orch: Orch, settings: config.Settings, at_work: "subprocess.Popen[bytes]"
) -> None:
    assert f"node {at_work.pid} has drained" in orch("down").err
    assert draining.seconds(settings, node=at_work.pid) == settings.drain


@pytest.mark.usefixtures("at_work")
def test_ctrl_c_says_that_the_node_drains_on(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(node, "_drain", interrupt)
    ran = orch("down")
    assert (ran.code, "drains on: `orch down` waits for it again" in ran.err) == (130, True)


def test_a_deadline_that_cannot_be_told_stops_nothing(
    orch: Orch, settings: config.Settings, at_work: "subprocess.Popen[bytes]"
) -> None:
    draining.path(settings).mkdir()
    ran = orch("down", "--timeout", "300")
    assert ran.code == 1
    assert "`orch down` without --timeout" in ran.err
    assert node.pid(settings) == at_work.pid
    assert sorted(path.name for path in settings.run_dir.glob("node.*")) == ["node.drain", "node.lock", "node.pid"]


def test_who_waits_already_gives_it_the_time_that_another_gives(
    settings: config.Settings, at_work: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([at_work.pid] * 8)

    def pid(_: config.Settings) -> int | None:
        draining.tell(settings, node=at_work.pid, seconds=60)
        return next(looks, None)

    monkeypatch.setattr(node, "pid", pid)
    monkeypatch.setattr(node, "DRAIN_MARGIN", 0.05)
    assert node._drain(settings, at_work.pid, 0)


@pytest.mark.usefixtures("at_work")
def test_without_a_database_the_node_is_stopped_all_the_same(orch: Orch, settings: config.Settings) -> None:
    assert not (settings.home / "orch.db").exists()
    ran = orch("down")
    assert "cannot be asked whether" in ran.err
    assert node.pid(settings) is None


@pytest.mark.usefixtures("at_work")
def test_an_older_database_is_left_to_the_node_as_it_is(orch: Orch, settings: config.Settings) -> None:
    before = "0009"
    make(settings.database, before)
    ran = orch("down")
    assert "cannot be asked whether" in ran.err
    assert node.pid(settings) is None
    with contextlib.closing(engine.Database(settings.database)) as database:
        assert migrations.version(database) == before
