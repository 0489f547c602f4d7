"""The outbox: what is stored with a move, who gets it, and how often."""

import pytest
from sqlalchemy import Connection

from orchestrator.core import states, telling
from orchestrator.store import base, sql, steering
from tests.conftest import HandClock
from tests.contract import parts

HOOK = "https://hooks.example.org/secret"
TELLS = telling.Telling(targets=(HOOK,))


def ended(store: base.Store, **fields: object) -> str:
    """Return the id of a job that was cancelled."""
    job = parts.submit(store, **{"notify": TELLS, **fields})
    return store.cancel(job.id, actor="ada").id


def answer(notice: telling.Notice | None, how: str, why: str = "") -> telling.Answer:
    assert notice is not None
    return telling.Answer(notice=notice, how=how, why=why)  # type: ignore[arg-type] # a word of the table


def told(store: base.Store, job_id: str) -> list[tuple[str, str | None]]:
    return [(event.kind, event.detail) for event in store.events(job_id) if "told" in event.kind]


def test_an_end_is_told_once_it_is_committed(any_store: sql.SqlStore, clock: HandClock) -> None:
    job_id = ended(any_store, name="first", tags=("a",))
    notice = any_store.next_notice()
    assert notice is not None
    assert (notice.job_id, notice.target) == (job_id, HOOK)
    assert notice.message == {
        "schema_version": 1,
        "key": f"{job_id}-{notice.seq}",
        "event": "cancelled",
        "text": f"Job {job_id} (first) was cancelled.",
        "at": clock.now().isoformat(),
        "job": {
            "id": job_id,
            "name": "first",
            "user": "ada",
            "tags": ["a"],
            "run": 1,
            "state": "cancelled",
            "reason": None,
            "error": None,
            "best_accuracy": None,
        },
    }
    assert any_store.next_notice(answer(notice, "told")) is None
    assert told(any_store, job_id) == [("told", "cancelled: https://hooks.example.org/***")]
    clock.move(days=1)
    assert any_store.next_notice() is None


def test_an_end_is_told_by_clocks_that_are_behind_as_well(any_store: sql.SqlStore, clock: HandClock) -> None:
    ended(any_store)
    clock.move(hours=-1)
    assert any_store.next_notice() is not None


def test_every_target_is_told_of_every_run_what_it_wants(any_store: sql.SqlStore) -> None:
    tells = telling.Telling(targets=("https://other/x", HOOK, HOOK), on=frozenset({telling.Occasion.FAILED}))
    held = parts.training(any_store, notify=tells)
    any_store.finish(held, parts.failed(states.Reason.TIMEOUT))
    any_store.retry(held.id, actor="ada")
    any_store.cancel(held.id, actor="ada")  # which nobody wants to hear
    found = [any_store.next_notice() for _ in range(3)]
    assert [notice and notice.target for notice in found] == [HOOK, "https://other/x", None]
    assert found[0] is not None
    assert found[0].message["text"] == f"Job {held.id} has failed (timeout): it was timeout"


def test_a_stall_is_told_though_the_job_is_tried_again(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store, notify=TELLS)
    assert any_store.finish(held, parts.failed(states.Reason.STALLED)).state is states.JobState.QUEUED
    notice = any_store.next_notice()
    assert notice is not None
    assert (notice.message["event"], notice.message["job"]["reason"]) == ("stalled", "stalled")


def test_what_is_undone_is_not_told(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store, notify=TELLS)

    def undone(connection: Connection) -> None:
        vars(steering.Steering)["cancel"].__wrapped__(any_store, connection, job.id, actor="ada")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        any_store.database.write(undone)
    assert any_store.next_notice() is None


def test_whoever_vanishes_over_a_try_is_followed_by_one_more(any_store: sql.SqlStore, clock: HandClock) -> None:
    job_id = ended(any_store)
    for _ in range(telling.MAY_BE_HEARD):
        assert any_store.next_notice() is not None
        assert any_store.next_notice() is None  # it is in somebody's hands
        clock.move(seconds=telling.LONGEST_TRY.total_seconds())
    assert any_store.next_notice() is None
    ((kind, detail),) = told(any_store, job_id)
    assert (kind, "may have been heard" in str(detail)) == ("not_told", True)


def test_what_nobody_heard_is_tried_until_the_tries_are_used_up(any_store: sql.SqlStore, clock: HandClock) -> None:
    job_id = ended(any_store)
    for tries in range(1, telling.TRIES + 1):
        any_store.next_notice(answer(any_store.next_notice(), "not_heard", "it answers 503"), more=False)
        clock.move(seconds=telling.pause(tries).total_seconds() - 1)
        assert any_store.next_notice() is None
        clock.move(seconds=1)
    assert any_store.next_notice() is None
    assert told(any_store, job_id) == [("not_told", "cancelled: https://hooks.example.org/*** (it answers 503)")]


def test_two_tries_that_may_have_been_heard_are_all(any_store: sql.SqlStore, clock: HandClock) -> None:
    job_id = ended(any_store)
    for how in ("unknown", "not_heard", "unknown"):
        any_store.next_notice(answer(any_store.next_notice(), how, "ReadTimeout"), more=False)
        clock.move(hours=1)
    assert any_store.next_notice() is None
    assert [kind for kind, _ in told(any_store, job_id)] == ["not_told"]


def test_a_refusal_is_final(any_store: sql.SqlStore, clock: HandClock) -> None:
    job_id = ended(any_store)
    any_store.next_notice(answer(any_store.next_notice(), "refused", "it answers 404"), more=False)
    clock.move(days=1)
    assert any_store.next_notice() is None
    assert [kind for kind, _ in told(any_store, job_id)] == ["not_told"]


def test_an_answer_that_comes_twice_or_too_late_changes_nothing(any_store: sql.SqlStore, clock: HandClock) -> None:
    job_id = ended(any_store)
    first = answer(any_store.next_notice(), "not_heard")
    any_store.next_notice(first, more=False)
    any_store.next_notice(first, more=False)  # its commit was not heard of
    clock.move(seconds=5)
    second = any_store.next_notice()
    any_store.next_notice(first, more=False)
    assert any_store.next_notice(answer(second, "told")) is None
    assert [kind for kind, _ in told(any_store, job_id)] == ["told"]


def test_no_two_get_the_same(any_store: sql.SqlStore) -> None:
    wanted = {ended(any_store) for _ in range(3)}
    found = [any_store.next_notice() for _ in range(4)]
    assert {notice.job_id for notice in found if notice} == wanted
    assert found[3] is None


def test_a_deleted_job_is_told_of_no_more(any_store: sql.SqlStore) -> None:
    any_store.delete(ended(any_store), actor="ada")
    assert any_store.next_notice() is None
