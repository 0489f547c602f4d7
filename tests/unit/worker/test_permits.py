from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from orchestrator.core import jobs, specs, states
from orchestrator.store import sql
from worker import identity
from worker.permits import Permits

ME = identity.mine("me")
OTHER = identity.mine("other")


def _claiming(store: sql.SqlStore, who: jobs.WorkerIdentity = ME) -> Callable[[], jobs.Claim | None]:
    return lambda: store.claim(worker=who, device="CPU", stages=[states.Stage.TRAIN], artifact_root="root")


def _claim(store: sql.SqlStore, who: jobs.WorkerIdentity = ME) -> jobs.Claim:
    claim = _claiming(store, who)()
    assert claim is not None
    return claim


@pytest.fixture
def waiting(store: sql.SqlStore) -> list[str]:
    """Three jobs that wait for their training."""
    for _ in range(3):
        store.submit(jobs.NewJob(spec=specs.JobSpec(), user="tester"))
        claim = store.claim(worker=ME, device="CPU", stages=[states.Stage.DOWNLOAD], artifact_root="root")
        assert claim is not None
        store.finish(claim, jobs.Outcome(kind="done"))
    return [job.id for job in store.jobs(jobs.JobFilter())]


def _permits(store: sql.SqlStore, folder: Path, limit: int) -> Permits:
    return Permits.create(folder / "tally", limit, store=store, worker=ME.id)


@pytest.mark.usefixtures("waiting")
def test_no_more_jobs_are_taken_than_permitted_by_all_slots_together(store: sql.SqlStore, tmp_path: Path) -> None:
    mine = _permits(store, tmp_path, 2)
    other = Permits(mine.path, store=store, worker=ME.id)
    taken = [permits.take(_claiming(store)) is not None for permits in (mine, other, mine, other)]
    assert taken == [True, True, False, False]
    assert mine.spent()


@pytest.mark.usefixtures("waiting")
def test_a_job_that_went_back_to_the_queue_counts_no_more(store: sql.SqlStore, tmp_path: Path) -> None:
    permits = _permits(store, tmp_path, 1)
    claim = permits.take(_claiming(store))
    assert claim is not None
    assert permits.spent()
    store.finish(claim, jobs.Outcome(kind="drained"))
    assert not permits.spent()
    assert permits.take(_claiming(store)) is not None


@pytest.mark.usefixtures("waiting")
def test_a_job_counts_whose_slot_was_killed_before_it_could_note_it(store: sql.SqlStore, tmp_path: Path) -> None:
    permits = _permits(store, tmp_path, 1)
    claim = _claim(store)
    assert permits.take(_claiming(store)) is None
    assert permits.spent()
    store.finish(claim, jobs.Outcome(kind="failed", reason=states.Reason.DIVERGED))
    assert permits.used_up()


@pytest.mark.usefixtures("waiting")
def test_a_job_that_another_worker_took_over_counts_no_more(store: sql.SqlStore, tmp_path: Path) -> None:
    permits = _permits(store, tmp_path, 1)
    assert permits.take(_claiming(store)) is not None
    (lease,) = store.leases()
    assert store.take_back(lease, actor="reconciler", detail="its slot was killed") is not None
    _claim(store, OTHER)
    assert permits.take(_claiming(store)) is not None


@pytest.mark.usefixtures("waiting")
def test_permits_are_used_up_when_the_jobs_have_ended_wherever_that_was(store: sql.SqlStore, tmp_path: Path) -> None:
    permits = _permits(store, tmp_path, 1)
    claim = permits.take(_claiming(store))
    assert claim is not None
    store.finish(claim, jobs.Outcome(kind="done"))
    assert not permits.used_up()
    evaluation = store.claim(worker=OTHER, device="CPU", stages=[states.Stage.EVALUATE], artifact_root="root")
    assert evaluation is not None
    store.finish(evaluation, jobs.Outcome(kind="done"))
    assert permits.used_up()
    assert permits.take(_claiming(store)) is None


@pytest.mark.usefixtures("waiting")
def test_a_job_that_fails_before_its_training_counts_and_disturbs_no_other(store: sql.SqlStore, tmp_path: Path) -> None:
    permits = _permits(store, tmp_path, 1)
    claim = permits.take(_claiming(store))
    assert claim is not None
    permits.end()
    assert permits.spent()
    assert not permits.used_up()
    store.finish(claim, jobs.Outcome(kind="failed", reason=states.Reason.DIVERGED))
    assert permits.used_up()


def test_a_job_that_ended_early_is_counted_while_the_database_is_away(store: sql.SqlStore, tmp_path: Path) -> None:
    permits, away = _permits(store, tmp_path, 1), cast("sql.SqlStore", None)
    Permits(permits.path, store=away, worker=ME.id).end()
    assert permits.used_up()


@pytest.mark.usefixtures("waiting")
def test_without_a_limit_everything_is_permitted(store: sql.SqlStore) -> None:
    permits = Permits(None, store=store, worker=ME.id)
    taken = [permits.take(_claiming(store)) is not None for _ in range(4)]
    assert taken == [True, True, True, False]
    permits.end()
    assert not permits.used_up()
    assert not permits.spent()
