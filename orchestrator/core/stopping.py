"""When a training ends before its last epoch: where it has stopped getting better."""

from collections.abc import Iterable, Iterator, Sequence

from orchestrator.core import jobs, specs


def last_epoch(spec: specs.JobSpec, values: Sequence[float]) -> int:
    """Return the epoch that ends a training: the last one, or that at which patience ends.

    `values` are what patience looks at, one of each epoch so far.
    """
    stale = _since_best(values, more_is_better=spec.patience_metric == "accuracy")
    ends = (epoch for epoch, since in enumerate(stale, start=1) if since == spec.patience)
    return next(ends, spec.epochs)


def watched(spec: specs.JobSpec, rows: Iterable[jobs.EpochMetric]) -> list[float]:
    """Return what patience looks at, of each epoch that `rows` tell of."""
    return [getattr(row, spec.patience_metric) for row in rows if row.split == "val"]


def said(spec: specs.JobSpec, values: Sequence[float]) -> str | None:
    """Return why a training that these values end has ended early, for people; None where it has not."""
    ended = len(values)
    if spec.patience is None or ended >= spec.epochs or ended != last_epoch(spec, values):
        return None
    best = ended - spec.patience
    return (
        f"after {ended} of {spec.epochs} epochs: the validation {spec.patience_metric} has been no better "
        f"than epoch {best}'s, {values[best - 1]:.4g}"
    )


def _since_best(values: Sequence[float], *, more_is_better: bool) -> Iterator[int]:
    """Yield, for each epoch, how many have passed since the best one so far; one merely as good does not count."""
    best = 0
    for epoch, value in enumerate(values):
        if value > values[best] if more_is_better else value < values[best]:
            best = epoch
        yield epoch - best
