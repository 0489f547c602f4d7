import pytest
import sqlalchemy

from orchestrator import errors
from orchestrator.core import ids, jobs, provenance, states
from orchestrator.store import jobmodels, people, sql
from tests.contract import parts
from tests.contract.test_fences import DATASET, EVALUATION, picture


def full(store: sql.SqlStore) -> jobs.Claim:
    """Return a job that has a row in every table of jobs."""
    held = parts.training(store, provenance=provenance.Provenance(origins={"lr": "flag"}))
    store.record_checkpoint(held, parts.checkpoint(held, 10), parts.epoch_rows(1))
    store.record_steps(held, parts.losses(1, 3))
    store.record_dataset(held, DATASET)
    store.record_evaluation(held, EVALUATION)
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="line"))
    return held


def test_every_row_of_a_deleted_job_goes_and_no_other(any_store: sql.SqlStore) -> None:
    kept = full(any_store)
    any_store.finish(kept, parts.DRAINED)
    any_store.cancel(kept.id, actor="ada")
    before = picture(any_store)
    held = full(any_store)
    any_store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    assert any_store.delete(held.id, actor="ada") == (parts.ROOT,)
    after = picture(any_store)
    assert [held.id in row for row in after.pop("deleted_jobs")] == [True]
    assert before.pop("deleted_jobs") == []
    assert after == before


@pytest.mark.parametrize("stand", ["queued", "paused", "cancelled"])
def test_whatever_does_not_run_can_be_deleted(any_store: sql.SqlStore, stand: str) -> None:
    job = parts.submit(any_store)
    if stand != "queued":
        {"paused": any_store.pause, "cancelled": any_store.cancel}[stand](job.id, actor="ada")
    assert any_store.delete(job.id, actor="ada") == ()
    assert parts.claim(any_store) is None


def test_running_job_cannot_be_deleted(any_store: sql.SqlStore) -> None:
    held = full(any_store)
    before = picture(any_store)
    with pytest.raises(errors.IllegalMove, match="is running") as caught:
        any_store.delete(held.id, actor="ada")
    assert f"orch cancel {held.id}" in str(caught.value.hint)
    assert picture(any_store) == before


def test_deleted_is_told_from_unknown(any_store: sql.SqlStore) -> None:
    job, other = parts.submit(any_store), parts.submit(any_store)
    any_store.delete(job.id, actor="ada")
    assert any_store.deleted([job.id, other.id, "nothere0"]) == {job.id}
    for look in (any_store.find, any_store.get):
        with pytest.raises(errors.NotFound, match="was deleted") as caught:
            look(job.id)
        assert "ada" in str(caught.value.why)
    with pytest.raises(errors.NotFound, match="There is no job"):
        any_store.get("nothere0")


def test_second_delete_finds_nothing(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    any_store.delete(job.id, actor="ada")
    with pytest.raises(errors.NotFound, match="was deleted"):
        any_store.delete(job.id, actor="bob")


def test_deleted_ids_are_found_among_very_many(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "IDS_AT_ONCE", 2)
    made = [parts.submit(any_store).id for _ in range(5)]
    for job_id in made[:3]:
        any_store.delete(job_id, actor="ada")
    assert any_store.deleted(made) == set(made[:3])


def test_key_of_a_deleted_job_is_free(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store, idempotency_key="k")
    any_store.delete(job.id, actor="ada")
    again, is_new = any_store.submit(parts.new_job(idempotency_key="k"))
    assert is_new
    assert again.id != job.id


def test_id_that_comes_again_is_that_of_a_living_job(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = parts.submit(any_store)
    any_store.delete(job.id, actor="ada")
    monkeypatch.setattr(ids, "new_id", lambda: job.id)
    assert parts.submit(any_store).id == job.id
    assert any_store.deleted([job.id]) == set()
    any_store.delete(job.id, actor="ada")
    assert any_store.deleted([job.id]) == {job.id}


def test_note_of_a_running_job_is_impossible(any_store: sql.SqlStore) -> None:
    values = {"id": "abcd1234", "run": 1, "attempt": 1, "deleted_by": "ada", "deleted_at": any_store.clock.now()}
    noting = jobmodels.deleted_jobs.insert().values(values | {"state": states.JobState.RUNNING})
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="not_running"):
        any_store.database.write(lambda connection: connection.execute(noting))
