import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.core import jobs, states
from orchestrator.store import jobmodels, models, sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.contract.test_fences import DATASET, EVALUATION

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_progress_is_stored_whole(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    progress = jobs.Progress(done=7, total=20, unit="steps", epoch=2, epochs=5, rate=3.5)
    any_store.record_progress(held, progress)
    assert any_store.get(held.id).progress == replace(progress, at=clock.now())


def test_progress_beyond_32_bits(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_progress(held, jobs.Progress(done=2**40, total=2**41, unit="bytes"))
    assert any_store.get(held.id).progress.total == 2**41


def test_steps_are_kept_once(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 3, value=0.5))
    any_store.record_steps(held, parts.losses(2, 4, value=0.9))
    assert [(metric.step, metric.value) for metric in any_store.steps(held.id)] == [
        (1, 0.5),
        (2, 0.5),
        (3, 0.5),
        (4, 0.9),
    ]
    any_store.record_steps(held, [])


def test_step_metrics_have_names(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, [*parts.losses(1, 2), jobs.StepMetric(step=1, name="lr", value=1e-4)])
    assert [metric.value for metric in any_store.steps(held.id, name="lr")] == [1e-4]
    assert any_store.steps(held.id, name="other") == []


def test_thousands_of_steps_at_once(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 20_000))
    assert len(any_store.steps(held.id)) == 20_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e-320])
def test_diverged_losses_come_back_as_they_were(any_store: sql.SqlStore, value: float) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 1, value=value))
    metrics = [replace(row, loss=value) for row in parts.epoch_rows(1)]
    any_store.record_checkpoint(held, parts.checkpoint(held, 1, epoch=1), metrics)
    for stored in (any_store.steps(held.id)[0].value, any_store.epochs(held.id)[0].loss):
        assert stored == value or (math.isnan(stored) and math.isnan(value))


@pytest.mark.parametrize("gpu", [None, 0.5])
def test_an_epoch_keeps_what_it_took_of_its_host(any_store: sql.SqlStore, gpu: float | None) -> None:
    held = parts.training(any_store)
    used = jobs.Usage(cores=1.75, memory=2**40, waiting=0.25, gpu=gpu, gpu_memory=None)
    val, train = parts.epoch_rows(1)
    any_store.record_checkpoint(held, parts.checkpoint(held, 3, epoch=1), [replace(train, usage=used), val])
    assert [row.usage for row in any_store.epochs(held.id)] == [used, None]


def test_data_set_fixes_the_job(any_store: sql.SqlStore, clock: HandClock) -> None:
    parts.submit(any_store)
    held = parts.claimed(any_store)
    any_store.record_dataset(held, DATASET)
    assert any_store.get(held.id).data_hash == DATASET.hash
    assert any_store.dataset(DATASET.hash) == replace(DATASET, created_at=clock.now())
    assert any_store.dataset("0" * 64) is None
    moved = replace(DATASET, path="/elsewhere")
    any_store.record_dataset(held, moved)
    assert any_store.dataset(DATASET.hash) == replace(moved, created_at=clock.now())


def test_newest_evaluation_counts(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    assert any_store.evaluation(held.id) is None
    any_store.finish(held, parts.DONE)
    for accuracy in (0.5, 0.75):
        held = parts.claimed(any_store)
        expected = replace(EVALUATION, attempt=held.attempt, accuracy=accuracy)
        any_store.record_evaluation(held, expected)
        any_store.finish(held, parts.DRAINED)
    assert any_store.evaluation(held.id) == replace(expected, created_at=clock.now())


def test_log_goes_on_over_attempts(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    for sequence, text in enumerate(["a", "b"]):
        any_store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=sequence, text=text))
    any_store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=1, text="again"))
    later = parts.resume(any_store, held, step=0)
    any_store.record_log(later, jobs.LogChunk(attempt=later.attempt, sequence=0, text="c"))
    assert "".join(chunk.text for chunk in any_store.logs(held.id)) == "abc"
    assert [chunk.text for chunk in any_store.logs(held.id, after=(held.attempt, 0))] == ["b", "c"]
    assert any_store.logs(held.id, after=(later.attempt, 0)) == []


@pytest.mark.parametrize("text", ["nul \0 inside", "half a pair \ud83d", "whole \U0001f600, \x1b[31mred\x1b[0m"])
def test_any_output_can_be_stored(any_store: sql.SqlStore, text: str) -> None:
    held = parts.training(any_store)
    any_store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text=text))
    any_store.note(held, kind="odd", detail=text)
    job = any_store.finish(held, replace(parts.failed(states.Reason.BAD_INPUT), error=text, hint=text))
    stored = any_store.logs(held.id)[0].text
    assert stored == job.error == any_store.events(held.id)[-2].detail
    assert stored.replace("\ufffd", "") == text.replace("\0", "").replace("\ud83d", "")


def test_note_changes_no_state(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.note(held, kind="damaged_checkpoint", detail="step 20: sha256 differs")
    event = any_store.events(held.id)[-1]
    assert (event.kind, event.detail, event.actor) == ("damaged_checkpoint", "step 20: sha256 differs", "worker-a")
    assert (event.old_state, event.new_state, event.attempt) == (None, None, held.attempt)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"worker": "worker-a"}, "running_has_worker"),
        ({"state": states.JobState.RUNNING, "worker": "worker-a"}, "running_has_attempt"),
        ({"state": states.JobState.FAILED, "finished_at": NOON}, "failed_has_reason"),
        ({"reason": states.Reason.OOM}, "failed_has_reason"),
        ({"state": states.JobState.CANCELLED}, "final_has_end"),
        ({"wish": states.Wish.CANCEL}, "wish_is_of_running"),
        ({"best_accuracy": 1.01}, "best_accuracy"),
        ({"retries": 1}, "counters"),
        ({"id": "short"}, "jobs_id"),
    ],
)
def test_impossible_rows_are_refused(any_store: sql.SqlStore, values: dict[str, object], constraint: str) -> None:
    job = parts.submit(any_store)
    with pytest.raises(IntegrityError, match=constraint):
        parts.overwrite(any_store, job.id, **values)


def test_deleting_a_job_deletes_all_of_it(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 3))
    any_store.record_checkpoint(held, parts.checkpoint(held, 3, epoch=1), parts.epoch_rows(1))
    any_store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="x"))
    any_store.database.write(lambda connection: connection.execute(jobmodels.jobs.delete()))
    left = any_store.database.read(
        lambda connection: {
            table.name for table in models.metadata.tables.values() if connection.execute(table.select()).first()
        }
    )
    assert left == set()


def test_moments_come_back_in_utc(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    there = clock.now().astimezone(timezone(timedelta(hours=9)))
    any_store.record_progress(held, jobs.Progress(done=1, at=there))
    at = any_store.get(held.id).progress.at
    assert at is not None
    assert at == clock.now()
    assert at.utcoffset() == timedelta(0)


def test_moment_without_a_zone_is_refused(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    with pytest.raises(Exception, match="time zone"):
        any_store.record_progress(held, jobs.Progress(done=1, at=clock.now().replace(tzinfo=None)))
