"""Where steps and epochs lie on each axis, and what smoothing and thinning leave of them."""

import pytest

from orchestrator.core import curves, jobs
from orchestrator.core.curves import Axis, Metric
from tests.support import jobs as made

#: Two epochs of four steps: one of 8 + 2 seconds, one of 16 + 4.
EPOCHS = [
    made.epoch(1, "train", loss=2.0, accuracy=0.2, seconds=8, step=4, lr=0.1),
    made.epoch(1, "val", loss=2.5, accuracy=0.1, seconds=2, step=4),
    made.epoch(2, "train", loss=1.0, accuracy=0.6, seconds=16, step=8, lr=0.01),
    made.epoch(2, "val", loss=1.5, accuracy=0.5, seconds=4, step=8),
]
STEPS = [jobs.StepMetric(step=step, name="loss", value=10.0 - step) for step in range(1, 11)]


def points(metric: Metric, axis: Axis, epochs: list[jobs.EpochMetric] = EPOCHS) -> tuple[curves.Point, ...]:
    return curves.curve(made.job(), metric, axis, epochs=epochs, steps=STEPS).points


@pytest.mark.parametrize(
    ("metric", "axis", "expected"),
    [
        (Metric.VAL_LOSS, Axis.EPOCH, ((1, 2.5), (2, 1.5))),
        (Metric.VAL_ACCURACY, Axis.STEP, ((4, 0.1), (8, 0.5))),
        (
            Metric.TRAIN_ACCURACY,
            Axis.TIME,
            ((8, 0.2), (26, 0.6)),
        ),  # the training of an epoch ends before its validation
        (Metric.VAL_ACCURACY, Axis.TIME, ((10, 0.1), (30, 0.5))),
        (Metric.LR, Axis.EPOCH, ((1, 0.1), (2, 0.01))),
    ],
)
def test_an_epoch_is_where_it_ends(metric: Metric, axis: Axis, expected: tuple[curves.Point, ...]) -> None:
    assert points(metric, axis) == expected


def test_a_step_is_its_share_of_its_epoch() -> None:
    assert [x for x, _ in points(Metric.LOSS, Axis.STEP)] == list(range(1, 11))
    assert [x for x, _ in points(Metric.LOSS, Axis.EPOCH)] == [step / 4 for step in range(1, 11)]
    # Between the steps 4 and 5 lies the validation; the epoch in work goes as fast as the one before it.
    assert [x for x, _ in points(Metric.LOSS, Axis.TIME)] == [2, 4, 6, 8, 14, 18, 22, 26, 34, 38]


def test_before_the_first_epoch_has_ended_only_steps_are_known_for_sure() -> None:
    assert len(points(Metric.LOSS, Axis.STEP, [])) == 10
    assert points(Metric.LOSS, Axis.EPOCH, []) == points(Metric.LOSS, Axis.TIME, []) == ()
    running = made.job(stage="train", progress=jobs.Progress(done=3, total=20, epoch=1, epochs=5))
    found = curves.curve(running, Metric.LOSS, Axis.EPOCH, epochs=[], steps=STEPS)
    assert found.points[1] == (0.5, 8.0)


def test_smoothing_begins_at_the_first_value_and_forgets_slowly() -> None:
    curve = curves.Curve(job="a", metric=Metric.LOSS, points=((1, 1.0), (2, 0.0), (3, 0.0)))
    assert curves.smoothed(curve, 0) is curve
    ys = [y for _, y in curves.smoothed(curve, 0.5).points]
    assert ys == pytest.approx([1, 1 / 3, 1 / 7])
    flat = curves.Curve(job="a", metric=Metric.LOSS, points=tuple((x, 3.0) for x in range(9)))
    assert [y for _, y in curves.smoothed(flat, 0.9).points] == pytest.approx([3.0] * 9)


def test_thinning_takes_means_of_neighbours() -> None:
    assert curves.thinned([(1, 1), (2, 3), (3, 5)], 2) == ((2, 2), (3, 5))
    assert curves.thinned([], 5) == ()
