import pytest

from orchestrator.core import specs, stopping

#: Metric, patience, values of the epochs so far, and the epoch that ends a training of ten.
ENDS: list[tuple[str, int | None, list[float], int]] = [
    ("accuracy", None, [0.5, 0.4, 0.3], 10),
    ("accuracy", 2, [], 10),
    ("accuracy", 2, [0.5, 0.4], 10),
    ("accuracy", 2, [0.5, 0.4, 0.3], 3),
    ("accuracy", 2, [0.5, 0.5, 0.5], 3),  # as good is no better
    ("accuracy", 2, [0.5, 0.4, 0.6, 0.5], 10),  # counted from the best
    ("accuracy", 2, [0.5, 0.4, 0.6, 0.5, 0.6], 5),
    ("accuracy", 1, [0.5, 0.6, 0.6], 3),
    ("loss", 2, [0.5, 0.6, 0.7], 3),
    ("loss", 2, [0.5, 0.4, 0.3], 10),
]


@pytest.mark.parametrize(("metric", "patience", "values", "ends"), ENDS)
def test_patience_counts_epochs_since_the_best(
    metric: str, patience: int | None, values: list[float], ends: int
) -> None:
    spec = specs.parse({"epochs": 10, "patience": patience, "patience_metric": metric})
    assert stopping.last_epoch(spec, values) == ends
    assert (stopping.said(spec, values) is None) == (ends == 10)


def test_an_early_end_is_told_with_its_best() -> None:
    spec = specs.parse({"epochs": 10, "patience": 2})
    said = "after 4 of 10 epochs: the validation accuracy has been no better than epoch 2's, 0.75"
    assert stopping.said(spec, [0.5, 0.75, 0.7, 0.75]) == said


def test_the_last_epoch_is_no_early_end() -> None:
    assert stopping.said(specs.parse({"epochs": 3, "patience": 2}), [0.5, 0.4, 0.3]) is None
