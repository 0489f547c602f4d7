"""A process that the kernel kills for memory is told apart from one that anybody killed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import ids, states
from orchestrator.store import sql
from tests.integration.worker.conftest import Bench
from tests.support import forking, stages
from tests.support.waiting import until
from worker import oom

pytestmark = pytest.mark.slow

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_ROOM = 64 * 2**20


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of the test's own; whoever may make none sees the test skipped, with the reason."""
    parent, limit = (_V1, "memory.limit_in_bytes") if (_V1 / "memory.limit_in_bytes").exists() else (_V2, "memory.max")
    folder = parent / f"orch-test-{ids.new_id()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group may be made here: {error}")
    try:
        if not os.access(folder / limit, os.W_OK):
            pytest.skip("the memory of a control group cannot be limited here")
        yield folder
    finally:
        until(lambda: _removed(folder))


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _limit(group: Path) -> None:
    """Leave the group 64 MiB more than it has."""
    v1 = group / "memory.limit_in_bytes"
    if v1.exists():
        v1.write_text(str(int((group / "memory.usage_in_bytes").read_text()) + _ROOM))
    else:
        (group / "memory.max").write_text(str(int((group / "memory.current").read_text()) + _ROOM))


def test_a_kill_by_the_kernel_is_oom_for_certain(
    group: Path,
    settings: config.Settings,
    store: sql.SqlStore,
    tmp_path: Path,
    stage: Callable[[str], None],
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage("use_up_memory")
    count = oom.counter

    def counting(pid: int) -> oom.Counter:
        made = count(pid)
        next(settings.artifact_dir.glob("*/attempt-0001")).joinpath(stages.COUNTED).touch()
        return made

    monkeypatch.setattr(oom, "counter", counting)
    with forking.server(tmp_path / "s", preload=()) as server:
        (group / "cgroup.procs").write_text(str(server.pid), encoding="ascii")
        _limit(group)
        bench = Bench(settings, store, tmp_path / "s")
        assert bench.run() is not None
    assert bench.attempt.reason is states.Reason.OOM
    assert "control group" in str(store.events(bench.job.id)[-1].detail)


def _host_has_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, since: bool) -> None:
    """Put a counter in the place of every group's and of the host's; it rises `since` the process has started."""
    counter = tmp_path / "vmstat"
    counter.write_text("oom_kill 7\n", encoding="ascii")
    monkeypatch.setattr(oom, "HOST", counter)
    monkeypatch.setattr(oom, "_files", lambda _: iter(()))
    before = oom.counter

    def then(pid: int) -> oom.Counter:
        made = before(pid)
        counter.write_text(f"oom_kill {7 + since}\n", encoding="ascii")
        return made

    monkeypatch.setattr(oom, "counter", then)


@pytest.fixture
def bench(settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path) -> Bench:
    return Bench(settings, store, cold_fork_server)


@pytest.mark.parametrize("since", [True, False])
def test_without_a_group_a_kill_is_oom_only_where_the_kernel_has_killed_meanwhile(
    bench: Bench, stage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, since: bool
) -> None:
    _host_has_killed(monkeypatch, tmp_path, since=since)
    stage("be_killed")
    bench.run()
    assert bench.attempt.reason is (states.Reason.OOM if since else states.Reason.LOST)
    assert ("most likely" in str(bench.store.events(bench.job.id)[-1].detail)) == since
