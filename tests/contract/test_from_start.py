"""`retry --from-start`: a job whose checkpoints are lost, or unwanted, begins anew, and its history stays true."""

from orchestrator.core import history, jobs, states
from orchestrator.store import base
from tests.contract import parts

PER_EPOCH = 4


def test_it_forgets_its_checkpoints_and_any_worker_may_take_it(any_store: base.Store) -> None:
    job = _failed_with_checkpoints(any_store)
    assert parts.claim(any_store, root="root-b") is None
    any_store.retry(job.id, actor="ada")
    assert parts.claim(any_store, root="root-b") is None
    any_store.cancel(job.id, actor="ada")
    again = any_store.retry(job.id, actor="ada", from_start=True)
    assert (again.state, again.stage, again.artifact_root) == (states.JobState.QUEUED, states.FIRST_STAGE, None)
    assert any_store.checkpoints(job.id) == []
    assert _findings(any_store, job.id) == []
    claim = parts.claimed(any_store, root="root-b")
    assert claim.checkpoints == ()


def test_the_new_training_counts_from_its_first_step(any_store: base.Store) -> None:
    job = _failed_with_checkpoints(any_store)
    any_store.retry(job.id, actor="ada", from_start=True)
    any_store.finish(parts.claimed(any_store, root="root-b"), parts.DONE)
    claim = parts.claimed(any_store, root="root-b")
    any_store.record_resumed(claim, attempt=None, step=0)
    assert any_store.epochs(job.id) == []
    assert any_store.get(job.id).best_accuracy is None
    _train(any_store, claim, epochs=2)
    assert [row.epoch for row in any_store.epochs(job.id)] == [1, 1, 2, 2]
    assert _findings(any_store, job.id) == []


def test_its_history_says_who_let_it_begin_anew(any_store: base.Store) -> None:
    job = _failed_with_checkpoints(any_store)
    any_store.retry(job.id, actor="bob", from_start=True)
    *_, new_run, forgotten = any_store.events(job.id)
    assert (new_run.kind, new_run.new_state) == ("new_run", states.JobState.QUEUED)
    assert (forgotten.kind, forgotten.actor, forgotten.new_state) == (history.FORGOTTEN, "bob", None)
    assert forgotten.detail == "2 checkpoints: the training begins anew"


def _failed_with_checkpoints(store: base.Store) -> jobs.Job:
    claim = parts.training(store)
    _train(store, claim, epochs=2)
    return store.finish(claim, parts.failed(states.Reason.NO_VALID_CHECKPOINT))


def _train(store: base.Store, claim: jobs.Claim, *, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        step = epoch * PER_EPOCH
        store.record_steps(claim, parts.losses(step - PER_EPOCH + 1, step))
        store.record_checkpoint(
            claim, parts.checkpoint(claim, step, accuracy=0.5, epoch=epoch), parts.epoch_rows(epoch)
        )


def _findings(store: base.Store, job_id: str) -> list[str]:
    return [finding.sentence for finding in history.check(store.history(job_id))]
