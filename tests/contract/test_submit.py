import pytest

from orchestrator import errors
from orchestrator.core import ids, jobs, specs, states
from orchestrator.service import views
from orchestrator.store import people, sql
from tests.conftest import HandClock
from tests.contract import parts


def test_submitted_job_waits_for_its_first_stage(any_store: sql.SqlStore, clock: HandClock) -> None:
    spec = specs.JobSpec(epochs=7, data="digits")
    job, is_new = any_store.submit(parts.new_job(spec=spec, name="first", tags=("a", "b"), priority=2))
    assert is_new
    assert (job.state, job.stage, job.wish) == (states.JobState.QUEUED, states.Stage.DOWNLOAD, states.Wish.RUN)
    assert (job.spec, job.spec_hash, job.name, job.tags) == (spec, spec.digest(), "first", ("a", "b"))
    assert (job.run, job.attempt, job.retries, job.priority, job.user) == (1, 0, 0, 2, "ada")
    assert job.submitted_at == clock.now()
    assert any_store.get(job.id) == job


def test_submit_writes_its_event(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    (event,) = any_store.events(job.id)
    assert (event.kind, event.actor, event.old_state, event.new_state) == (
        "submitted",
        "ada",
        None,
        states.JobState.QUEUED,
    )
    assert any_store.events(job.id, after=event.seq) == []


def test_same_key_and_spec_return_the_earlier_job(any_store: sql.SqlStore) -> None:
    first, _ = any_store.submit(parts.new_job(idempotency_key="k"))
    again, is_new = any_store.submit(parts.new_job(idempotency_key="k"))
    assert (again, is_new) == (first, False)
    assert len(any_store.jobs(jobs.JobFilter())) == 1


def test_same_key_with_another_spec_is_refused(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store, idempotency_key="k")
    with pytest.raises(errors.IdempotencyConflict) as caught:
        any_store.submit(parts.new_job(idempotency_key="k", spec=specs.JobSpec(epochs=6)))
    assert first.id in str(caught.value.why)


def test_taken_id_is_drawn_again(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(ids, "new_id", lambda: next(drawn))
    assert [parts.submit(any_store).id for _ in range(2)] == ["aaaaaaaa", "bbbbbbbb"]


def test_ids_that_stay_taken_end_in_an_error(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "new_id", lambda: "aaaaaaaa")
    parts.submit(any_store)
    with pytest.raises(errors.OrchError, match="No free job id"):
        parts.submit(any_store)
    assert people.TRIES > 1


def test_job_of_a_newer_orch_can_still_be_listed(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    newer = {**job.spec.model_dump(mode="json"), "invented_later": 1, "epochs": 9}
    parts.overwrite(any_store, job.id, spec=newer, spec_version=specs.SPEC_VERSION + 1)
    assert any_store.get(job.id).spec.epochs == 9


def test_spec_that_a_later_rule_forbids_can_still_be_looked_at(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    old = job.spec.model_dump(mode="json") | {"image_size": 4, "gone": True, "blocks": [1, 2]}
    parts.overwrite(any_store, job.id, spec=old)
    (found,) = any_store.jobs(jobs.JobFilter())
    assert (found.spec.image_size, found.spec.blocks, found.spec.lr) == (4, (1, 2), job.spec.lr)
    assert views.job(found).spec.image_size == 4
    assert parts.claimed(any_store).job.spec == found.spec
