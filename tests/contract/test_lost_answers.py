"""A commit whose answer is lost: whoever asked asks again, and everything has happened once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import jobs, states
from orchestrator.service import reconcile
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.contract.test_fences import WRITES, picture

Lose = Callable[[], None]


@pytest.fixture
def lose(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lose]:
    """Lose the answer to the next transaction that writes, after its commit."""
    write = any_store.database.write
    losing: list[bool] = []

    def cut(work: Any, **named: Any) -> Any:
        result = write(work, **named)
        if losing:
            losing.pop()
            raise errors.DatabaseUnavailable(why="the connection was cut during the commit")
        return result

    monkeypatch.setattr(any_store.database, "write", cut)
    yield lambda: losing.append(True)
    assert losing == []


def twice(work: Callable[[], object], lose: Lose) -> None:
    lose()
    with pytest.raises(errors.DatabaseUnavailable):
        work()
    work()


@pytest.mark.parametrize("write", [name for name in WRITES if name not in {"beat", "wish"}])
def test_write_that_is_done_again_has_happened_once(any_store: sql.SqlStore, write: str, lose: Lose) -> None:
    held = parts.training(any_store)
    lose()
    with pytest.raises(errors.DatabaseUnavailable):
        WRITES[write](any_store, held)
    once = picture(any_store)
    WRITES[write](any_store, held)
    assert picture(any_store) == once


@pytest.mark.parametrize(
    "outcome",
    [parts.DONE, parts.DRAINED, parts.PAUSED, jobs.Outcome(kind="cancelled"), parts.failed(states.Reason.GPU_ERROR)],
)
def test_end_that_is_said_again_is_told_what_it_has_done(
    any_store: sql.SqlStore, lose: Lose, outcome: jobs.Outcome
) -> None:
    held = parts.training(any_store)
    lose()
    with pytest.raises(errors.DatabaseUnavailable):
        any_store.finish(held, outcome)
    assert any_store.finish(held, outcome) == any_store.get(held.id)
    assert len([event for event in any_store.events(held.id) if event.attempt == held.attempt]) == 2


def test_end_that_is_said_again_after_the_next_claim_leaves_that_alone(any_store: sql.SqlStore, lose: Lose) -> None:
    held = parts.training(any_store)
    lose()
    with pytest.raises(errors.DatabaseUnavailable):
        any_store.finish(held, parts.DRAINED)
    again = parts.claimed(any_store, worker="worker-b")
    assert any_store.finish(held, parts.DRAINED).worker == "worker-b"
    assert any_store.beat(again) is states.Wish.RUN


@pytest.mark.parametrize("outcome", [parts.DONE, parts.failed(states.Reason.OOM)])
def test_another_end_is_stale(any_store: sql.SqlStore, outcome: jobs.Outcome) -> None:
    held = parts.training(any_store)
    any_store.finish(held, parts.failed(states.Reason.GPU_ERROR))
    with pytest.raises(errors.Stale):
        any_store.finish(held, outcome)


def test_claim_of_which_nobody_heard_ends_with_its_lease(any_store: sql.SqlStore, clock: HandClock, lose: Lose) -> None:
    job = parts.submit(any_store)
    lose()
    with pytest.raises(errors.DatabaseUnavailable):
        parts.claim(any_store)
    assert any_store.get(job.id).state is states.JobState.RUNNING
    assert parts.claim(any_store) is None
    reconciler = reconcile.Reconciler(store=any_store, clock=clock, lease_seconds=30, actor="reconciler")
    for _ in range(5):
        reconciler.sweep()
        clock.move(seconds=10)
    assert (any_store.get(job.id).state, any_store.get(job.id).retries) == (states.JobState.QUEUED, 1)
    assert parts.claimed(any_store).attempt == 2


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_person_who_repeats_a_wish_changes_nothing_more(any_store: sql.SqlStore, verb: str, lose: Lose) -> None:
    held = parts.training(any_store)
    twice(lambda: getattr(any_store, verb)(held.id, actor="ada"), lose)
    assert parts.kinds(any_store, held.id).count(f"{verb}_requested") == 1
