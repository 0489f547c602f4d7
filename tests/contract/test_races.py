import functools
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection

from orchestrator import config, errors
from orchestrator.core import jobs, limits, states
from orchestrator.store import engine, jobmodels, sql
from tests.contract import parts
from tests.support.waiting import patiently

T = TypeVar("T")

#: Nothing here takes longer; a deadlock would.
DEADLINE = 100.0


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """Run the works in threads that start together; return their results in order."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], T]) -> T:
        gate.wait(DEADLINE)
        return patiently(work)

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(DEADLINE) for future in [pool.submit(run, work) for work in works]]


def _claim_until_none(settings: config.Settings, name: str, start: Any, results: Any) -> None:
    with closing(patiently(sql.open_store, settings)) as store:
        start.wait(DEADLINE)
        taken = []
        while (held := patiently(parts.claim, store, worker=name)) is not None:
            taken.append((held.id, held.attempt))
        results.put(taken)


def test_processes_claim_every_job_once(any_settings: config.Settings) -> None:
    with closing(sql.open_store(any_settings)) as store:
        submitted = [parts.submit(store).id for _ in range(100)]
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(8), context.Queue()
    claimers = [
        context.Process(target=_claim_until_none, args=(any_settings, f"w{number}", start, results))
        for number in range(8)
    ]
    for claimer in claimers:
        claimer.start()
    taken = [claim for _ in claimers for claim in results.get(timeout=DEADLINE)]
    for claimer in claimers:
        claimer.join(DEADLINE)
    # PostgreSQL's claimers skip rows that another one holds just then, and may all leave before the last ones.
    assert Counter(taken).most_common(1)[0][1] == 1
    with closing(sql.open_store(any_settings)) as store:
        while (late := parts.claim(store)) is not None:
            taken.append((late.id, late.attempt))
    assert sorted(taken) == sorted((job_id, 1) for job_id in submitted)


def test_claim_passes_over_a_job_that_another_claimer_holds(postgres_url: str, settings: config.Settings) -> None:
    """On a server claimers do not wait for each other: each takes the next job that is free."""
    there = settings.model_copy(update={"database_url": SecretStr(postgres_url)})
    with closing(sql.open_store(there)) as store, closing(engine.Database(postgres_url)) as other:
        first, second = parts.submit(store), parts.submit(store)

        def hold_first(connection: Connection) -> str:
            holding = jobmodels.jobs.select().where(jobmodels.jobs.c.id == first.id).with_for_update()
            connection.execute(holding)
            return parts.claimed(store).id

        assert other.write(hold_first) == second.id


@pytest.mark.parametrize("of", [{"users": {limits.OTHERS: 2}}, {"tags": {"big": 4}}])
def test_limits_hold_where_many_claim_at_once(any_store: sql.SqlStore, of: dict[str, dict[str, int]]) -> None:
    for user in ("ada", "bob") * 5:
        parts.submit(any_store, user=user, tags=("big",))
        any_store.finish(parts.claimed(any_store, states.Stage.DOWNLOAD), parts.DONE)
    claim = functools.partial(
        any_store.claim,
        worker=parts.identity(),
        device="cpu",
        stages=(states.Stage.TRAIN,),
        artifact_root=parts.ROOT,
        limits=limits.Limits(**of),
    )
    taken = [held for held in at_once([claim] * 8) if held is not None]
    assert Counter(held.job.user for held in taken) == {"ada": 2, "bob": 2}


def test_one_key_from_many_sides_makes_one_job(any_store: sql.SqlStore) -> None:
    results = at_once([lambda: any_store.submit(parts.new_job(idempotency_key="k"))] * 8)
    assert len({job.id for job, _ in results}) == 1
    assert [is_new for _, is_new in results].count(True) == 1
    assert len(any_store.jobs(jobs.JobFilter())) == 1


def test_finish_and_take_back_have_one_winner(any_store: sql.SqlStore) -> None:
    for _ in range(10):
        held = parts.training(any_store)
        (lease,) = any_store.leases()

        def finish(held: jobs.Claim = held) -> bool:
            try:
                any_store.finish(held, parts.failed(states.Reason.BAD_INPUT))
            except errors.Stale:
                return False
            return True

        def take_back(lease: jobs.Lease = lease) -> bool:
            return any_store.take_back(lease, actor="r", detail="silent") is not None

        works: list[Callable[[], bool]] = [finish, take_back]
        assert sorted(at_once(works)) == [False, True]
        ends = [event for event in any_store.events(held.id) if event.old_state is states.JobState.RUNNING]
        assert len(ends) == 2  # of the download, and of the training
        if any_store.get(held.id).state is states.JobState.QUEUED:
            any_store.cancel(held.id, actor="ada")  # out of the next round's way


def test_lease_is_taken_back_by_one_reconciler(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    (lease,) = any_store.leases()
    results = at_once([lambda: any_store.take_back(lease, actor="r", detail="silent")] * 6)
    assert len([job for job in results if job is not None]) == 1
    assert any_store.get(held.id).retries == 1


def test_many_cancels_are_one(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    at_once([lambda: any_store.cancel(job.id, actor="ada")] * 6)
    assert parts.kinds(any_store, job.id) == ["submitted", "cancelled"]


def test_cancel_against_claim_leaves_no_runaway(any_store: sql.SqlStore) -> None:
    for _ in range(10):
        job = parts.submit(any_store)
        works: list[Callable[[], object]] = [
            functools.partial(parts.claim, any_store),
            functools.partial(any_store.cancel, job.id, actor="ada"),
        ]
        held, _ = at_once(works)
        if held is None:
            assert any_store.get(job.id).state is states.JobState.CANCELLED
        else:
            assert isinstance(held, jobs.Claim)
            assert any_store.wish(held) is states.Wish.CANCEL
            any_store.finish(held, jobs.Outcome(kind="cancelled"))


def test_one_retry_of_many_begins_a_run(any_store: sql.SqlStore) -> None:
    job = any_store.cancel(parts.submit(any_store).id, actor="ada")

    def retry() -> bool:
        try:
            any_store.retry(job.id, actor="ada")
        except errors.IllegalMove:
            return False
        return True

    assert at_once([retry] * 6).count(True) == 1
    assert any_store.get(job.id).run == 2


def test_beats_of_many_threads_are_all_counted(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    at_once([lambda: [any_store.beat(held) for _ in range(10)]] * 4)
    assert any_store.leases()[0].beat == 40
