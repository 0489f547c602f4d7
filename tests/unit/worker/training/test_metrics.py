import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker.training import metrics


def test_precision_goes_by_prediction_and_recall_by_truth() -> None:
    confusion = np.array([[3, 1], [2, 4]])  # rows: truth
    assert metrics.precision(confusion) == (3 / 5, 4 / 5)
    assert metrics.recall(confusion) == (3 / 4, 4 / 6)


def test_a_class_that_is_never_predicted_has_precision_zero() -> None:
    assert metrics.precision(np.array([[2, 0], [1, 0]])) == (2 / 3, 0.0)


@given(arrays.arrays(np.int64, (4, 4), elements=st.integers(0, 50)))
def test_recall_weighted_by_truth_is_accuracy(confusion: metrics.Confusion) -> None:
    weighted = sum(share * row.sum() for share, row in zip(metrics.recall(confusion), confusion, strict=True))
    assert weighted == pytest.approx(np.trace(confusion))
    assert all(0 <= share <= 1 for share in metrics.precision(confusion))


def test_sums_weigh_each_batch_by_its_pictures() -> None:
    sums = metrics.Sums()
    sums.add(loss=1.0, correct=1, images=4)
    sums.add(loss=4.0, correct=1, images=2)
    row = sums.row(epoch=1, split="train")
    assert (row.loss, row.accuracy, row.images) == (2.0, 2 / 6, 6)
