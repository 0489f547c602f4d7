"""Jobs that start from another's checkpoint: it stays, its job stays, and workers that reach it take the job."""

import pytest

from orchestrator import errors
from orchestrator.core import history, jobs, specs, states
from orchestrator.core.findings import Kind
from orchestrator.service import submit as service
from orchestrator.store import sql
from tests.contract import parts


def no_bell(_stage: states.Stage) -> None:
    return None


def parent(store: sql.SqlStore, *, ended: bool = True) -> jobs.Claim:
    """Return a job whose best checkpoint is of step 20, of three."""
    held = parts.training(store)
    for epoch, accuracy in enumerate((0.5, 0.9, 0.6), start=1):
        point = parts.checkpoint(held, 10 * epoch, accuracy=accuracy, epoch=epoch)
        store.record_checkpoint(held, point, parts.epoch_rows(epoch, accuracy=accuracy))
    if ended:
        store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    return held


def child(store: sql.SqlStore, of: str, **fields: object) -> jobs.Job:
    spec = specs.JobSpec(weights=f"job:{of}", **fields)
    return service.submit(store, parts.new_job(spec=spec), ring=no_bell).job


def to_training(store: sql.SqlStore, *, root: str = parts.ROOT) -> jobs.Claim:
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD, root=root), parts.DONE)
    return parts.claimed(store, states.Stage.TRAIN, root=root)


def succeed(store: sql.SqlStore) -> None:
    """Train the one job that waits for an epoch, and evaluate it."""
    claim = to_training(store)
    store.record_resumed(claim, attempt=None, step=0)
    store.record_checkpoint(claim, parts.checkpoint(claim, 10, accuracy=0.5, epoch=1), parts.epoch_rows(1))
    store.finish(claim, parts.DONE)
    store.finish(parts.claimed(store, states.Stage.EVALUATE), parts.DONE)


def test_a_claim_brings_the_best_checkpoint_along(any_store: sql.SqlStore) -> None:
    held = parent(any_store)
    job = child(any_store, held.id[:5])
    assert (job.spec.weights, job.parent, job.start_step) == (f"job:{held.id}", held.id, 20)
    claim = to_training(any_store)
    assert claim.start is not None
    assert (claim.id, claim.start.step, claim.start.path) == (job.id, 20, parts.checkpoint(held, 20).path)
    assert claim.checkpoints == ()
    assert parts.training(any_store).start is None


def test_only_a_worker_that_reaches_the_checkpoint_takes_the_job(any_store: sql.SqlStore) -> None:
    child(any_store, parent(any_store).id)
    assert parts.claim(any_store, root="elsewhere") is None
    assert parts.claim(any_store) is not None


def test_retention_keeps_what_others_start_from(any_store: sql.SqlStore) -> None:
    held = parent(any_store, ended=False)
    job = child(any_store, held.id)
    kept = []
    for epoch in (4, 5, 6):  # a better one comes, and two after it
        point = parts.checkpoint(held, 10 * epoch, accuracy=0.95, epoch=epoch)
        kept = [each.step for each in any_store.record_checkpoint(held, point, parts.epoch_rows(epoch, accuracy=0.95))]
    assert kept == [60, 50, 40, 20]
    any_store.cancel(job.id, actor="ada")
    any_store.delete(job.id, actor="ada")
    last = parts.checkpoint(held, 70, accuracy=0.5, epoch=7)
    assert [each.step for each in any_store.record_checkpoint(held, last, parts.epoch_rows(7))] == [70, 60, 40]


def test_a_job_that_others_start_from_stays_until_they_have_succeeded(any_store: sql.SqlStore) -> None:
    held = parent(any_store)
    job = child(any_store, held.id)
    with pytest.raises(errors.IllegalMove, match=f"{job.id} starts from its checkpoint"):
        any_store.delete(held.id, actor="ada")
    with pytest.raises(errors.IllegalMove, match="trained anew"):
        any_store.retry(held.id, actor="ada", from_start=True)
    assert any_store.get(held.id).state is states.JobState.FAILED
    succeed(any_store)
    any_store.delete(held.id, actor="ada")
    assert any_store.get(job.id).state is states.JobState.SUCCEEDED


def test_what_cannot_start_again_keeps_its_own_checkpoints(any_store: sql.SqlStore) -> None:
    held = parent(any_store)
    job = child(any_store, held.id)
    succeed(any_store)
    any_store.delete(held.id, actor="ada")  # nobody needed it any more
    any_store.extend(job.id, epochs=job.spec.epochs + 1, actor="ada")
    any_store.cancel(job.id, actor="ada")
    with pytest.raises(errors.IllegalMove, match="the checkpoint that it started from has gone") as refused:
        any_store.retry(job.id, actor="ada", from_start=True)
    assert refused.value.why == f"It was that of step 20 of job {held.id}."
    assert [point.step for point in any_store.checkpoints(job.id)] == [10]
    assert any_store.retry(job.id, actor="ada").stage is states.Stage.TRAIN


def test_a_cancelled_job_can_be_begun_anew_from_the_same_checkpoint(any_store: sql.SqlStore) -> None:
    job = child(any_store, parent(any_store).id)
    any_store.cancel(job.id, actor="ada")
    any_store.retry(job.id, actor="ada", from_start=True)
    claim = to_training(any_store)
    assert claim.start is not None
    assert claim.start.step == 20


def test_a_checkpoint_that_goes_before_the_job_is_stored_is_none_to_start_from(any_store: sql.SqlStore) -> None:
    held = parent(any_store)
    with pytest.raises(errors.NotFound, match="step 15"):
        any_store.submit(parts.new_job(parent=held.id, start_step=15))
    assert [job.id for job in any_store.jobs(jobs.JobFilter())] == [held.id]


@pytest.mark.parametrize("trained", [False, True])
def test_what_cannot_be_started_from_is_refused(any_store: sql.SqlStore, *, trained: bool) -> None:
    other = parent(any_store).id if trained else parts.submit(any_store).id
    kind, said = (errors.InvalidSpec, "growth_rate: 32, 16 here") if trained else (errors.NotFound, "no checkpoint")
    with pytest.raises(kind) as caught:
        child(any_store, other, **({"growth_rate": 16} if trained else {}))
    assert said in f"{caught.value.message} {caught.value.why}"
    with pytest.raises(errors.NotFound, match="There is no job"):
        child(any_store, "nobody")


def test_dropout_is_no_other_network(any_store: sql.SqlStore) -> None:
    assert child(any_store, parent(any_store).id, dropout=0.2).start_step == 20


def test_an_audit_accepts_what_is_kept_for_others(any_store: sql.SqlStore) -> None:
    held = parent(any_store, ended=False)
    child(any_store, held.id)
    for epoch in (4, 5, 6):
        point = parts.checkpoint(held, 10 * epoch, accuracy=0.95, epoch=epoch)
        any_store.record_checkpoint(held, point, parts.epoch_rows(epoch, accuracy=0.95))
    assert [each for each in history.check(any_store.history(held.id)) if each.kind is Kind.RETENTION] == []
