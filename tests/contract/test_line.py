import pytest

from orchestrator.core import history, jobs, specfields, specs, states
from orchestrator.core.findings import Kind
from orchestrator.store import sql
from tests.contract import parts


def steps(store: sql.SqlStore, job_id: str) -> list[tuple[int, int | None]]:
    return [(metric.step, metric.attempt) for metric in store.steps(job_id)]


def points(store: sql.SqlStore, job_id: str) -> list[tuple[int, int]]:
    return [(point.attempt, point.step) for point in store.checkpoints(job_id)]


def test_steps_past_the_resumed_checkpoint_are_hidden(any_store: sql.SqlStore) -> None:
    first = parts.training(any_store)
    any_store.record_steps(first, parts.losses(1, 14))
    any_store.record_checkpoint(first, parts.checkpoint(first, 10))
    second = parts.resume(any_store, first, step=10)
    any_store.record_steps(second, parts.losses(11, 12))
    assert steps(any_store, first.id) == [(step, 2) for step in range(1, 11)] + [(11, 3), (12, 3)]
    assert [metric.step for metric in any_store.steps(first.id, after=10)] == [11, 12]


def test_line_goes_back_through_several_attempts(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 12))
    any_store.record_checkpoint(held, parts.checkpoint(held, 10))
    held = parts.resume(any_store, held, step=10)  # attempt 3
    any_store.record_steps(held, parts.losses(11, 25))
    any_store.record_checkpoint(held, parts.checkpoint(held, 20))
    held = parts.resume(any_store, held, step=20)  # attempt 4 stops before a checkpoint
    any_store.record_steps(held, parts.losses(21, 22))
    held = parts.resume(any_store, held, step=10)  # attempt 5 finds the checkpoint at 20 damaged
    any_store.record_steps(held, parts.losses(11, 13))
    assert steps(any_store, held.id) == [(step, 2) for step in range(1, 11)] + [(11, 5), (12, 5), (13, 5)]
    assert points(any_store, held.id) == [(2, 10)]
    assert [(attempt.resumed_from, attempt.first_step) for attempt in any_store.attempts(held.id)] == [
        (None, None),  # the download
        (None, 0),
        (2, 10),
        (3, 20),
        (2, 10),
    ]


def test_start_from_nothing_leaves_everything_behind(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 5))
    any_store.record_checkpoint(held, parts.checkpoint(held, 5, epoch=1, accuracy=0.9), parts.epoch_rows(1))
    held = parts.resume(any_store, held, step=0)
    assert (steps(any_store, held.id), points(any_store, held.id), any_store.epochs(held.id)) == ([], [], [])
    assert any_store.get(held.id).best_accuracy is None


def test_epoch_is_counted_once_on_the_line(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 10, epoch=1), parts.epoch_rows(1, accuracy=0.5))
    any_store.record_checkpoint(held, parts.checkpoint(held, 20, epoch=2), parts.epoch_rows(2, accuracy=0.6))
    held = parts.resume(any_store, held, step=10)
    any_store.record_checkpoint(held, parts.checkpoint(held, 20, epoch=2), parts.epoch_rows(2, accuracy=0.7))
    assert [(row.epoch, row.split, row.accuracy, row.attempt) for row in any_store.epochs(held.id)] == [
        (1, "train", 0.5, 2),
        (1, "val", 0.5, 2),
        (2, "train", 0.7, 3),
        (2, "val", 0.7, 3),
    ]


def test_an_epoch_that_is_closed_anew_counts_once(any_store: sql.SqlStore) -> None:
    """A stop while it was measured left a checkpoint of its last step, and the one of its end is damaged."""
    held = parts.training(any_store)
    any_store.record_steps(held, parts.losses(1, 10))
    any_store.record_checkpoint(held, parts.checkpoint(held, 10))  # attempt 2
    for _ in range(2):  # attempts 3 and 4
        any_store.finish(held, parts.DRAINED)
        held = parts.claimed(any_store, states.Stage.TRAIN)
        any_store.record_resumed(held, attempt=2, step=10)
        any_store.record_checkpoint(held, parts.checkpoint(held, 10, epoch=1, accuracy=0.5), parts.epoch_rows(1))
    assert [(row.epoch, row.split, row.attempt) for row in any_store.epochs(held.id)] == [
        (1, "train", 4),
        (1, "val", 4),
    ]
    assert points(any_store, held.id) == [(4, 10), (2, 10)]
    assert steps(any_store, held.id) == [(step, 2) for step in range(1, 11)]
    known = any_store.history(held.id)
    assert {row.attempt: row.line_end for row in known.attempts} == known.line_ends == {1: 0, 2: 10, 3: 9, 4: None}


def test_claim_offers_the_line_only(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    for step in (10, 20):
        any_store.record_checkpoint(held, parts.checkpoint(held, step))
    held = parts.resume(any_store, held, step=10)
    any_store.finish(held, parts.DRAINED)
    again = parts.claimed(any_store)
    assert [(point.attempt, point.step) for point in again.checkpoints] == [(2, 10)]


def test_line_of_one_job_is_not_touched_by_another(any_store: sql.SqlStore) -> None:
    quiet = parts.training(any_store)
    any_store.record_checkpoint(quiet, parts.checkpoint(quiet, 10, accuracy=0.8))
    other = parts.training(any_store)
    any_store.record_checkpoint(other, parts.checkpoint(other, 10, accuracy=0.4))
    parts.resume(any_store, other, step=0)
    assert points(any_store, quiet.id) == [(2, 10)]
    assert any_store.checkpoints(quiet.id)[0].best
    assert any_store.get(quiet.id).best_accuracy == 0.8


def flags(store: sql.SqlStore, job_id: str) -> dict[int, str]:
    return {point.step: "best" * point.best + "last" * point.last for point in store.checkpoints(job_id)}


def test_best_and_last_follow_the_checkpoints(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    seen = []
    for step, accuracy in ((10, 0.6), (20, 0.8), (25, None), (30, 0.8), (40, 0.9)):
        any_store.record_checkpoint(held, parts.checkpoint(held, step, accuracy=accuracy))
        seen.append((flags(any_store, held.id), any_store.get(held.id).best_accuracy))
    assert seen == [
        ({10: "bestlast"}, 0.6),
        ({20: "bestlast", 10: ""}, 0.8),
        ({25: "last", 20: "best"}, 0.8),
        ({30: "last", 25: "", 20: "best"}, 0.8),  # of equals the earliest stays the best
        ({40: "bestlast", 30: ""}, 0.9),
    ]


@pytest.mark.parametrize(("keep", "kept"), [(1, [5]), (3, [5, 4, 3]), ("all", [5, 4, 3, 2, 1])])
def test_a_job_says_how_many_checkpoints_stay(any_store: sql.SqlStore, keep: specfields.Keep, kept: list[int]) -> None:
    held = parts.training(any_store, spec=specs.JobSpec(keep=keep))
    returned = [any_store.record_checkpoint(held, parts.checkpoint(held, step)) for step in range(1, 6)][-1]
    assert [point.step for point in returned] == kept
    assert [point.step for point in any_store.checkpoints(held.id)] == kept
    found = history.check(any_store.history(held.id))
    assert [finding for finding in found if finding.kind is Kind.RETENTION] == []


def test_retention_returns_what_it_keeps(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    returned: list[list[int]] = []
    for step, accuracy in ((10, 0.9), (20, 0.1), (30, 0.2), (40, 0.3), (50, 1.0)):
        kept = any_store.record_checkpoint(held, parts.checkpoint(held, step, accuracy=accuracy))
        returned.append([point.step for point in kept])
    assert returned == [[10], [20, 10], [30, 20, 10], [40, 30, 10], [50, 40]]
    assert points(any_store, held.id) == [(2, 50), (2, 40)]


def test_best_is_found_again_when_it_left_the_line(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 10, accuracy=0.6))
    any_store.record_checkpoint(held, parts.checkpoint(held, 20, accuracy=0.9))
    held = parts.resume(any_store, held, step=10)
    assert flags(any_store, held.id) == {10: "bestlast"}
    assert any_store.get(held.id).best_accuracy == 0.6


def test_checkpoint_recorded_twice_is_one(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    for _ in range(2):
        any_store.record_checkpoint(held, parts.checkpoint(held, 10, epoch=1), parts.epoch_rows(1))
    assert (points(any_store, held.id), len(any_store.epochs(held.id))) == ([(2, 10)], 2)


def test_stage_that_does_not_train_leaves_the_line_alone(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 10, accuracy=0.5))
    any_store.finish(held, jobs.Outcome(kind="done", last_step=10))
    evaluating = parts.claimed(any_store)
    assert [point.step for point in evaluating.checkpoints] == [10]
    assert any_store.attempts(held.id)[1].last_step == 10
