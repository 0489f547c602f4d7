"""`extend`: a job that has ended gets more epochs, in a new run, and its history keeps the end that it had."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import history, jobs, specs, states
from orchestrator.core.dependencies import Dependency
from orchestrator.core.findings import Kind
from orchestrator.store import base, jobmodels, sql
from tests.contract import parts
from tests.contract.test_fences import EVALUATION

State = states.JobState
PER_EPOCH = 4


def test_a_success_goes_on_to_its_training_and_succeeds_again(any_store: base.Store) -> None:
    job = _succeeded(any_store)
    again = any_store.extend(job.id, epochs=3, actor="bob")
    assert (again.state, again.stage, again.run, again.finished_at) == (State.QUEUED, states.Stage.TRAIN, 2, None)
    assert (again.spec, again.spec_hash) == (specs.JobSpec(epochs=3), specs.JobSpec(epochs=3).digest())
    _finish(any_store, job.id, epochs=(3,))
    assert any_store.get(job.id).state is State.SUCCEEDED
    assert [row.epoch for row in any_store.epochs(job.id) if row.split == "val"] == [1, 2, 3]
    assert _findings(any_store, job.id) == []


def test_its_history_keeps_the_end_that_it_had(any_store: base.Store) -> None:
    job = _succeeded(any_store)
    any_store.extend(job.id, epochs=3, actor="bob")
    *_, ended, extended = any_store.events(job.id)
    assert (ended.kind, ended.run, ended.new_state) == ("succeeded", 1, State.SUCCEEDED)
    assert (extended.kind, extended.run, extended.actor) == (history.EXTENDED, 2, "bob")
    assert (extended.old_state, extended.new_state) == (State.SUCCEEDED, State.QUEUED)
    assert extended.detail == "epochs 2 to 3"


def test_what_leaves_a_success_in_another_way_is_found(any_store: sql.SqlStore) -> None:
    job = _succeeded(any_store)
    any_store.extend(job.id, epochs=3, actor="bob")
    event = jobmodels.events
    forged = event.update().where(event.c.job_id == job.id, event.c.kind == history.EXTENDED).values(kind="new_run")
    any_store.database.write(lambda connection: connection.execute(forged))
    assert [finding.kind for finding in history.check(any_store.history(job.id))] == [Kind.FINAL]


def test_a_job_that_failed_goes_on_where_it_stood(any_store: base.Store) -> None:
    parts.submit(any_store)
    job = any_store.finish(parts.claimed(any_store), parts.failed(states.Reason.BAD_INPUT))
    again = any_store.extend(job.id, epochs=9, actor="ada")
    assert (again.stage, again.reason, again.error) == (states.Stage.DOWNLOAD, None, None)


def test_an_older_orch_extends_no_job_of_which_it_would_lose_a_part(any_store: sql.SqlStore) -> None:
    job = any_store.cancel(parts.submit(any_store).id, actor="ada")
    later = {**job.spec.model_dump(mode="json"), "invented_later": 1}
    parts.overwrite(any_store, job.id, spec=later, spec_version=specs.SPEC_VERSION + 1)
    with pytest.raises(errors.IllegalMove, match="older"):
        any_store.extend(job.id, epochs=9, actor="ada")


@pytest.mark.parametrize("epochs", [1, 2])
def test_as_many_epochs_or_fewer_are_refused(any_store: base.Store, epochs: int) -> None:
    job = _succeeded(any_store)
    with pytest.raises(errors.IllegalMove, match=f"{epochs} are no more"):
        any_store.extend(job.id, epochs=epochs, actor="ada")
    assert any_store.get(job.id) == job


def test_more_than_there_can_be_is_an_invalid_spec(any_store: base.Store) -> None:
    job = _succeeded(any_store)
    with pytest.raises(errors.InvalidSpec, match="epochs = 100001"):
        any_store.extend(job.id, epochs=100_001, actor="ada")
    assert any_store.get(job.id) == job


def test_what_patience_has_ended_would_not_train_more(any_store: base.Store) -> None:
    job = _succeeded(any_store, patience=1)  # both epochs are as good
    with pytest.raises(errors.IllegalMove, match="patience has ended it with epoch 2"):
        any_store.extend(job.id, epochs=9, actor="ada")


def test_what_patience_has_ended_and_is_to_begin_anew_can_have_more(any_store: base.Store) -> None:
    job = parts.submit(any_store, spec=specs.JobSpec(epochs=5, patience=1))
    any_store.finish(parts.claimed(any_store, states.Stage.DOWNLOAD), parts.DONE)
    _train(any_store, epochs=(1, 2))
    any_store.finish(parts.claimed(any_store, states.Stage.EVALUATE), parts.failed(states.Reason.NO_VALID_CHECKPOINT))
    with pytest.raises(errors.IllegalMove, match="patience has ended it"):
        any_store.extend(job.id, epochs=6, actor="ada")
    any_store.retry(job.id, actor="ada", from_start=True)
    any_store.cancel(job.id, actor="ada")
    assert any_store.extend(job.id, epochs=6, actor="ada").stage is states.FIRST_STAGE


def test_what_has_not_ended_is_refused(any_store: base.Store) -> None:
    job = parts.submit(any_store)
    with pytest.raises(errors.IllegalMove, match="only a job that has ended"):
        any_store.extend(job.id, epochs=9, actor="ada")


def test_a_success_is_not_retried(any_store: base.Store) -> None:
    job = _succeeded(any_store)
    with pytest.raises(errors.IllegalMove, match="only a failed or cancelled job") as refused:
        any_store.retry(job.id, actor="ada")
    assert f"orch extend {job.id}" in str(refused.value.hint)


def test_what_it_waited_for_has_been(any_store: base.Store) -> None:
    needed = parts.submit(any_store)
    any_store.cancel(needed.id, actor="ada")
    job = _succeeded(any_store, after=(Dependency(needs=needed.id, rule=states.After.ANY),))
    any_store.retry(needed.id, actor="ada")
    assert not any_store.extend(job.id, epochs=3, actor="ada").blocked


def test_who_was_let_go_by_a_success_waits_for_it_no_more(any_store: base.Store) -> None:
    needed = parts.submit(any_store)
    job = parts.submit(any_store, after=(Dependency(needs=needed.id, rule=states.After.OK),))
    any_store.finish(parts.claimed(any_store), parts.DONE)
    _finish(any_store, needed.id, epochs=(1,))
    any_store.unblock(actor="a reconciler")
    any_store.extend(needed.id, epochs=6, actor="ada")
    (heard,) = any_store.dependencies(job.id)
    assert (any_store.get(job.id).blocked, heard.ended) == (False, states.Ended.SUCCEEDED)


def test_its_key_still_means_it(any_store: base.Store) -> None:
    job = _succeeded(any_store, idempotency_key="k")
    any_store.extend(job.id, epochs=3, actor="ada")
    for epochs in (2, 3):
        found, is_new = any_store.submit(parts.new_job(spec=specs.JobSpec(epochs=epochs), idempotency_key="k"))
        assert (found.id, is_new) == (job.id, False)
    for other in (specs.JobSpec(epochs=4), specs.JobSpec(epochs=2, lr=0.5)):
        with pytest.raises(errors.IdempotencyConflict):
            any_store.submit(parts.new_job(spec=other, idempotency_key="k"))


def test_without_an_extension_fewer_epochs_are_another_spec(any_store: base.Store) -> None:
    _succeeded(any_store, idempotency_key="k")
    with pytest.raises(errors.IdempotencyConflict):
        any_store.submit(parts.new_job(spec=specs.JobSpec(epochs=1), idempotency_key="k"))


def _succeeded(
    store: base.Store,
    *,
    patience: int | None = None,
    idempotency_key: str | None = None,
    after: tuple[Dependency, ...] = (),
) -> jobs.Job:
    job = parts.submit(
        store, spec=specs.JobSpec(epochs=2, patience=patience), idempotency_key=idempotency_key, after=after
    )
    store.unblock(actor="reconciler")
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD), parts.DONE)
    return _finish(store, job.id, epochs=(1, 2))


def _finish(store: base.Store, job_id: str, *, epochs: tuple[int, ...]) -> jobs.Job:
    """Train these epochs, evaluate, and return the job."""
    _train(store, epochs=epochs)
    held = parts.claimed(store, states.Stage.EVALUATE)
    best = next(point for point in store.checkpoints(job_id) if point.best)
    made: dict[str, Any] = {"checkpoint_step": best.step, "checkpoint_sha256": best.sha256, "attempt": held.attempt}
    store.record_evaluation(held, replace(EVALUATION, **made))
    return store.finish(held, parts.DONE)


def _train(store: base.Store, *, epochs: tuple[int, ...]) -> None:
    held = parts.claimed(store, states.Stage.TRAIN)
    last = held.checkpoints[0] if held.checkpoints else None
    store.record_resumed(held, attempt=last.attempt if last else None, step=last.step if last else 0)
    for epoch in epochs:
        step = epoch * PER_EPOCH
        store.record_steps(held, parts.losses(step - PER_EPOCH + 1, step))
        store.record_checkpoint(held, parts.checkpoint(held, step, accuracy=0.5, epoch=epoch), parts.epoch_rows(epoch))
    store.finish(held, parts.DONE)


def _findings(store: base.Store, job_id: str) -> list[str]:
    return [finding.sentence for finding in history.check(store.history(job_id))]
