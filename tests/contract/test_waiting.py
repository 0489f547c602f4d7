"""Jobs that wait for their hour or for other jobs: they are passed over, and go on or fail when these have ended."""

from datetime import timedelta

import pytest

from orchestrator import errors
from orchestrator.core import dependencies, jobs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts

State, Stage, After, Ended = states.JobState, states.Stage, states.After, states.Ended


def behind(*needs: jobs.Job, rule: states.After = After.OK) -> tuple[dependencies.Dependency, ...]:
    return tuple(dependencies.Dependency(needs=job.id, rule=rule) for job in needs)


def succeed(store: sql.SqlStore, job: jobs.Job) -> None:
    """Bring a job, the only one that may be claimed, to its end."""
    while store.get(job.id).state is State.QUEUED:
        held = parts.claimed(store)
        assert held.id == job.id
        store.finish(held, parts.DONE)
    assert store.get(job.id).state is State.SUCCEEDED


def fail(store: sql.SqlStore, job: jobs.Job) -> None:
    held = parts.claimed(store)
    assert held.id == job.id
    store.finish(held, parts.failed(states.Reason.BAD_INPUT))


def test_a_job_begins_at_its_hour(any_store: sql.SqlStore, clock: HandClock) -> None:
    hour = clock.now() + timedelta(hours=2)
    job = parts.submit(any_store, not_before=hour)
    assert (job.blocked, job.start_after, job.not_before) == (True, hour, hour)
    assert parts.claim(any_store) is None
    assert any_store.counts().eligible[Stage.DOWNLOAD] == 0
    clock.move(hours=2)
    assert any_store.counts().eligible[Stage.DOWNLOAD] == 1
    assert parts.claimed(any_store).id == job.id


def test_an_hour_that_has_passed_blocks_nothing(any_store: sql.SqlStore, clock: HandClock) -> None:
    job = parts.submit(any_store, not_before=clock.now())
    assert not job.blocked
    assert parts.claimed(any_store).id == job.id


def test_a_pause_does_not_bring_the_hour_forward(any_store: sql.SqlStore, clock: HandClock) -> None:
    job = parts.submit(any_store, not_before=clock.now() + timedelta(hours=2))
    any_store.pause(job.id, actor="ada")
    assert any_store.resume(job.id, actor="ada").blocked
    assert parts.claim(any_store) is None
    clock.move(hours=2)
    assert parts.claimed(any_store).id == job.id


def test_what_is_released_at_one_hour_comes_in_order(any_store: sql.SqlStore, clock: HandClock) -> None:
    hour = clock.now() + timedelta(hours=2)
    late = parts.submit(any_store, not_before=hour)
    urgent = parts.submit(any_store, not_before=hour, priority=3)
    clock.move(hours=2)
    assert any_store.unblock(actor="r") == 2
    assert any_store.unblock(actor="r") == 0
    assert [parts.claimed(any_store).id for _ in range(2)] == [urgent.id, late.id]


def test_a_job_waits_for_the_success_of_another(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    assert second.blocked
    assert any_store.dependencies(second.id) == [dependencies.Dependency(needs=first.id, rule=After.OK)]
    assert any_store.counts().eligible[Stage.DOWNLOAD] == 1
    succeed(any_store, first)
    assert parts.claimed(any_store).id == second.id
    assert any_store.dependencies(second.id)[0].ended is Ended.SUCCEEDED


def test_a_job_waits_for_all_that_it_names(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    third = parts.submit(any_store, after=behind(first, second))
    succeed(any_store, first)
    succeed(any_store, second)
    assert parts.claimed(any_store).id == third.id


@pytest.mark.parametrize("how", ["failed", "cancelled", "deleted"])
def test_a_job_fails_for_want_of_anothers_success(any_store: sql.SqlStore, how: str) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    third = parts.submit(any_store, after=behind(second))
    others = parts.submit(any_store, after=behind(first, rule=After.ANY))
    if how == "failed":
        fail(any_store, first)
    else:
        {"cancelled": any_store.cancel, "deleted": any_store.delete}[how](first.id, actor="ada")
    any_store.unblock(actor="r")
    any_store.unblock(actor="r")
    for job, cause in ((second, first), (third, second)):
        ended = any_store.get(job.id)
        assert (ended.state, ended.reason, ended.attempt) == (State.FAILED, states.Reason.DEPENDENCY, 0)
        assert cause.id in str(ended.error)
    assert any_store.events(second.id)[-1].reason is states.Reason.DEPENDENCY
    assert parts.claimed(any_store).id == others.id
    assert parts.claim(any_store) is None


def test_a_claim_alone_settles_what_has_ended(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    fail(any_store, first)
    assert parts.claim(any_store) is None
    assert any_store.get(second.id).state is State.FAILED


def test_what_has_ended_before_the_submit_counts(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    succeed(any_store, first)
    assert not parts.submit(any_store, after=behind(first)).blocked
    other = parts.submit(any_store)
    any_store.cancel(other.id, actor="ada")
    late = parts.submit(any_store, after=behind(other))
    any_store.unblock(actor="r")
    assert any_store.get(late.id).reason is states.Reason.DEPENDENCY


def test_a_job_cannot_wait_for_one_that_is_not_there(any_store: sql.SqlStore) -> None:
    nothing = (dependencies.Dependency(needs="nothere0", rule=After.OK),)
    with pytest.raises(errors.NotFound, match="nothere0"):
        parts.submit(any_store, after=nothing)
    assert any_store.jobs(jobs.JobFilter()) == []


def test_after_a_retry_of_both_the_second_waits_again(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    fail(any_store, first)
    any_store.unblock(actor="r")
    any_store.retry(first.id, actor="ada")
    again = any_store.retry(second.id, actor="ada")
    assert (again.state, again.blocked, again.run) == (State.QUEUED, True, 2)
    succeed(any_store, first)
    assert parts.claimed(any_store).id == second.id


def test_a_retry_alone_fails_again(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    fail(any_store, first)
    any_store.unblock(actor="r")
    any_store.retry(second.id, actor="ada")
    any_store.unblock(actor="r")
    assert any_store.get(second.id).reason is states.Reason.DEPENDENCY


def test_a_paused_job_hears_of_the_end_when_it_is_resumed(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    any_store.pause(second.id, actor="ada")
    succeed(any_store, first)
    assert parts.claim(any_store) is None
    assert not any_store.resume(second.id, actor="ada").blocked
    assert parts.claimed(any_store).id == second.id


def test_hour_and_dependency_both_count(any_store: sql.SqlStore, clock: HandClock) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first), not_before=clock.now() + timedelta(hours=2))
    succeed(any_store, first)
    assert parts.claim(any_store) is None
    clock.move(hours=2)
    assert parts.claimed(any_store).id == second.id


@pytest.mark.parametrize(("bound", "value"), [("BATCH", 2), ("SECONDS", 0.0)])
def test_many_that_wait_are_looked_at_in_batches(
    any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(f"orchestrator.store.waiting.{bound}", value)
    first = parts.submit(any_store)
    waiting = [parts.submit(any_store, after=behind(first, rule=After.ANY)).id for _ in range(5)]
    any_store.cancel(first.id, actor="ada")
    assert any_store.unblock(actor="r") == 5
    assert [parts.claimed(any_store).id for _ in waiting] == waiting


def test_a_chain_fails_at_once_down_to_its_end(any_store: sql.SqlStore) -> None:
    first = last = parts.submit(any_store)
    chain = [last := parts.submit(any_store, after=behind(last)) for _ in range(7)]
    any_store.cancel(first.id, actor="ada")
    assert parts.claim(any_store) is None  # which settles what is due
    ended = [any_store.get(job.id) for job in chain]
    assert {(job.reason, job.not_before) for job in ended} == {(states.Reason.DEPENDENCY, None)}


def test_of_those_that_are_looked_at_together_one_may_wait_for_another(any_store: sql.SqlStore) -> None:
    first, second = parts.submit(any_store), parts.submit(any_store)
    fails = parts.submit(any_store, after=behind(second))
    waits = parts.submit(any_store, after=behind(first, fails), priority=5)  # and comes before the other
    any_store.pause(second.id, actor="ada")
    succeed(any_store, first)
    any_store.cancel(second.id, actor="ada")
    any_store.unblock(actor="r")
    assert [any_store.get(job.id).reason for job in (fails, waits)] == [states.Reason.DEPENDENCY] * 2


@pytest.mark.parametrize("how", ["succeeded", "cancelled", "deleted"])
def test_an_end_is_noticed_by_clocks_that_are_behind_as_well(
    any_store: sql.SqlStore, clock: HandClock, how: str
) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first, rule=After.ANY))
    if how == "succeeded":
        succeed(any_store, first)
    else:
        {"cancelled": any_store.cancel, "deleted": any_store.delete}[how](first.id, actor="ada")
    clock.move(hours=-1)
    assert any_store.counts().eligible[Stage.DOWNLOAD] == 1
    assert parts.claimed(any_store).id == second.id


@pytest.mark.parametrize("how", ["deleted", "extended"])
def test_once_it_has_begun_a_job_waits_for_no_other(any_store: sql.SqlStore, clock: HandClock, how: str) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first), priority=5)
    succeed(any_store, first)
    held = parts.claimed(any_store)
    any_store.finish(held, parts.failed(states.Reason.OOM))  # comes again behind a backoff
    if how == "deleted":
        any_store.delete(first.id, actor="ada")
    else:
        any_store.extend(first.id, epochs=first.spec.epochs + 1, actor="ada")
    assert any_store.dependencies(second.id)[0].ended is Ended.SUCCEEDED
    clock.move(hours=1)
    again = parts.claimed(any_store, Stage.DOWNLOAD)
    assert again.id == second.id
    any_store.pause(second.id, actor="ada")
    any_store.finish(again, parts.DRAINED)
    assert not any_store.resume(second.id, actor="ada").blocked
    any_store.cancel(second.id, actor="ada")
    assert not any_store.retry(second.id, actor="ada").blocked


def test_a_backoff_is_not_cut_short_by_the_end_of_what_a_job_waits_for_no_more(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first), priority=5)
    succeed(any_store, first)
    any_store.finish(parts.claimed(any_store), parts.failed(states.Reason.OOM))
    pause = any_store.get(second.id).not_before
    any_store.extend(first.id, epochs=first.spec.epochs + 1, actor="ada")
    third = parts.submit(any_store, after=behind(first))
    succeed(any_store, first)
    assert any_store.dependencies(third.id)[0].ended is Ended.SUCCEEDED
    assert any_store.get(second.id).not_before == pause


def test_what_had_succeeded_and_is_gone_has_succeeded(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    second = parts.submit(any_store, after=behind(first))
    succeed(any_store, first)
    any_store.pause(second.id, actor="ada")
    any_store.delete(first.id, actor="ada")
    assert not any_store.resume(second.id, actor="ada").blocked


def test_its_hour_is_kept_however_far_its_attempts_are_counted(any_store: sql.SqlStore, clock: HandClock) -> None:
    """A restored job counts on from far ahead, without having begun."""
    job = parts.submit(any_store, not_before=clock.now() + timedelta(hours=2))
    parts.overwrite(any_store, job.id, attempt=8000)
    any_store.pause(job.id, actor="ada")
    assert any_store.resume(job.id, actor="ada").blocked
