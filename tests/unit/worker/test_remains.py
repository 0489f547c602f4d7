"""Clearing up holds up nothing: no sweep for leases, and no reading of jobs that nobody needs."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest

from orchestrator import config
from orchestrator.core import clock, jobs, layout
from orchestrator.service import reconcile
from worker import node, recorder, remains


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return config.Settings(home=tmp_path, sweep=0.01)


def test_no_sweep_waits_for_a_walk_over_all_folders(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    some = object.__new__(node.Node)
    some._settings, some._clock, some._stop = settings, clock.SystemClock(), threading.Event()
    some._sweep_soon, some._ring_soon = threading.Event(), threading.Event()
    stub: Any = SimpleNamespace(id="w")
    some._store = some._identity = stub
    walking, swept, order = threading.Event(), threading.Event(), list[str]()

    def walk(*_args: Any, **_named: Any) -> None:
        walking.set()
        order.append("swept before it ended" if swept.wait(60) else "never swept")

    def sweep(_: object) -> tuple[()]:
        if walking.is_set():
            swept.set()
        return ()

    def last(*_args: Any) -> None:
        order.append("files")
        some._stop.set()

    monkeypatch.setattr(remains, "clear_all", walk)
    monkeypatch.setattr(remains, "sweep", last)
    monkeypatch.setattr(recorder, "recover", lambda *_args, **_named: None)
    monkeypatch.setattr(reconcile.Reconciler, "sweep", sweep)
    threads = [threading.Thread(target=work) for work in (some._tidy, some._reconcile)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["swept before it ended", "files"]


def test_ended_attempts_are_cleared_many_jobs_a_query_until_it_is_over(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, asked = settings.artifact_dir, list[int]()
    left = [layout.attempt(root, f"job{number}", 1) / "left" for number in range(5)]
    for file in left:
        file.parent.mkdir(parents=True)
        file.touch()

    def found(which: jobs.JobFilter) -> list[Any]:
        asked.append(len(which.ids))
        return [SimpleNamespace(id=name, attempt=2, worker="w") for name in which.ids]

    store: Any = SimpleNamespace(jobs=found, checkpoints=lambda _: [])
    monkeypatch.setattr(remains, "_AT_ONCE", 2)
    answers = iter([False, False, True])
    remains.clear_all(root, store, over=lambda: next(answers))
    assert (asked, sum(file.exists() for file in left)) == ([2], 4)
    remains.clear_all(root, store)
    assert (asked[1:], any(file.exists() for file in left)) == ([2, 2], False)


def test_what_is_being_downloaded_needs_no_reading_of_jobs(settings: config.Settings) -> None:
    part = settings.data_dir / "archives" / "0a1b.part"
    for folder in (part.parent, settings.data_dir / "locks"):
        folder.mkdir(parents=True)
    part.touch()
    asked: list[jobs.JobFilter] = []

    def found(which: jobs.JobFilter) -> list[jobs.Job]:
        asked.append(which)
        return []

    store: Any = SimpleNamespace(deleted=lambda _: set(), jobs=found)
    with filelock.FileLock(settings.data_dir / "locks" / "0a1b.lock"):
        remains.sweep(store, settings)
        assert (asked, part.exists()) == ([], True)
    remains.sweep(store, settings)
    assert (len(asked), part.exists()) == (1, False)
