"""The reconciler over a real store: what has fallen silent is taken back, and what waits is rung for."""

from collections.abc import Iterable
from typing import cast

import pytest

from orchestrator.core import states
from orchestrator.queue import dispatch
from orchestrator.service import reconcile
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.contract.test_fleet import register

LEASE = 30


@pytest.fixture
def reconciler(any_store: sql.SqlStore, clock: HandClock) -> reconcile.Reconciler:
    return reconcile.Reconciler(store=any_store, clock=clock, lease_seconds=LEASE, actor="reconciler")


class Bell:
    """A broker that only counts."""

    def __init__(self, **lying: int) -> None:
        self.lying = {states.Stage(name): count for name, count in lying.items()}

    def waiting(self, stages: Iterable[states.Stage]) -> dict[states.Stage, int]:
        return {stage: self.lying.get(stage, 0) for stage in stages}

    def ring(self, stage: states.Stage, times: int = 1) -> None:
        self.lying[stage] = self.lying.get(stage, 0) + times


def top_up(store: sql.SqlStore, bell: Bell, restraint: reconcile.Restraint | None = None) -> dict[states.Stage, int]:
    reconcile.top_up(store, cast("dispatch.Doorbell", bell), restraint or reconcile.Restraint())
    return bell.lying


def sweep_for(reconciler: reconcile.Reconciler, clock: HandClock, seconds: int) -> None:
    for _ in range(seconds // 10 + 1):
        reconciler.sweep()
        clock.move(seconds=10)


def test_a_silent_lease_and_its_worker_are_given_up(
    any_store: sql.SqlStore, reconciler: reconcile.Reconciler, clock: HandClock
) -> None:
    register(any_store, clock)
    held = parts.training(any_store)
    sweep_for(reconciler, clock, LEASE)
    job = any_store.get(held.id)
    assert (job.state, job.retries) == (states.JobState.QUEUED, 1)
    assert [worker.state for worker in any_store.workers()] == [states.WorkerState.LOST]


def test_who_beats_is_left_alone(any_store: sql.SqlStore, reconciler: reconcile.Reconciler, clock: HandClock) -> None:
    register(any_store, clock)
    held = parts.training(any_store)
    for _ in range(10):
        reconciler.sweep()
        any_store.beat(held)
        any_store.beat_worker("worker-a", states.WorkerState.ACTIVE)
        clock.move(seconds=10)
    assert any_store.get(held.id).attempt == held.attempt
    assert [worker.state for worker in any_store.workers()] == [states.WorkerState.ACTIVE]


def test_what_waits_is_rung_for_once(any_store: sql.SqlStore) -> None:
    bell = Bell(download=1)
    for _ in range(3):
        parts.submit(any_store)
    for _ in range(2):  # the second round finds every doorbell in place
        assert top_up(any_store, bell) == {states.Stage.DOWNLOAD: 3}


def test_doorbells_that_are_lost_are_rung_again(any_store: sql.SqlStore) -> None:
    parts.submit(any_store)
    bell, restraint = Bell(), reconcile.Restraint()
    for _ in range(10):  # however often
        assert top_up(any_store, bell, restraint) == {states.Stage.DOWNLOAD: 1}
        bell.lying.clear()


def test_doorbells_never_pile_up(any_store: sql.SqlStore) -> None:
    for _ in range(reconcile.MOST_DOORBELLS + 3):
        parts.submit(any_store)
    assert top_up(any_store, Bell()) == {states.Stage.DOWNLOAD: reconcile.MOST_DOORBELLS}
    surplus = Bell(download=100)
    assert top_up(any_store, surplus) == {states.Stage.DOWNLOAD: 100}


def test_what_is_heard_in_vain_is_rung_for_ever_less(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "MOST_DOORBELLS", 4)
    for _ in range(6):
        parts.submit(any_store)
    restraint, rung = reconcile.Restraint(), []
    for number in range(6):
        if number == 4:
            parts.submit(any_store)
        rung.append(top_up(any_store, Bell(), restraint)[states.Stage.DOWNLOAD])
    assert rung == [4, 2, 1, 1, 4, 2]
    assert top_up(any_store, Bell(download=3), restraint) == {states.Stage.DOWNLOAD: 3}  # nobody heard one meanwhile
