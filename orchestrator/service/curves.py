"""The curves of several jobs, laid out for drawing: metrics of one quantity share a panel."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import errors
from orchestrator.core import curves
from orchestrator.core.jobs import Job
from orchestrator.store.base import Store

#: Jobs in one picture: more lines cannot be told apart.
MOST = 10

#: What is drawn where nobody chooses.
OF_ONE = (curves.Metric.LOSS, curves.Metric.VAL_LOSS, curves.Metric.TRAIN_ACCURACY, curves.Metric.VAL_ACCURACY)
OF_SEVERAL = (curves.Metric.VAL_LOSS, curves.Metric.VAL_ACCURACY)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve and what it is called in the legend."""

    label: str
    curve: curves.Curve


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines that share their axes."""

    quantity: str
    axis: curves.Axis
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What is drawn against what."""
        one = {line.curve.metric for line in self.lines}
        what = one.pop().replace("_", " ") if len(one) == 1 else self.quantity
        return f"{what} by {self.axis}"


def find(store: Store, texts: Sequence[str]) -> list[Job]:
    """Return the jobs that are meant, each once; raises NotFound, or Ambiguous with the candidates."""
    return list({job.id: job for job in map(store.find, texts)}.values())


def panels(
    store: Store,
    jobs: Sequence[Job],
    *,
    metrics: Sequence[curves.Metric] = (),
    axis: curves.Axis = curves.Axis.EPOCH,
    smooth: float = 0,
) -> list[Panel]:
    """Return the curves of jobs, a panel for each quantity; without `metrics`, of those that are usual.

    Raises:
        UsageError: there are more jobs than lines that can be told apart.

    """
    if len(jobs) > MOST:
        raise errors.UsageError(
            f"{len(jobs)} jobs are too many for one picture.", why=f"At most {MOST} lines can be told apart."
        )
    chosen = _chosen(jobs, metrics)
    drawn = [
        curves.smoothed(found, smooth) for job in jobs for found in _curves(store, job, chosen, axis) if found.points
    ]
    named = labels(jobs)
    by_quantity: dict[str, list[curves.Curve]] = {}
    for metric in chosen:
        by_quantity.setdefault(metric.quantity, []).extend(one for one in drawn if one.metric is metric)
    return [
        Panel(quantity=quantity, axis=axis, lines=tuple(_lines(together, named)))
        for quantity, together in by_quantity.items()
        if together
    ]


def lacking(
    store: Store, jobs: Sequence[Job], panels: Sequence[Panel], *, metrics: Sequence[curves.Metric], axis: curves.Axis
) -> errors.OrchError | None:
    """Return what to say where no job has a metric that was asked for, or nothing is drawn; None where all is well."""
    drawn = {line.curve.metric for panel in panels for line in panel.lines}
    absent = [metric for metric in _chosen(jobs, metrics) if metric not in drawn]
    if not absent or (panels and not metrics):
        return None
    ids = " ".join(job.id for job in jobs)
    if there := _there(store, jobs, axis):
        known = ", ".join(there)
        why, hint = f"There is no {' and no '.join(absent)} of {ids}, but {known}.", f"`orch plot {ids}` draws those."
    elif _there(store, jobs, curves.Axis.STEP):
        why = f"Where a step of {ids} lies by {axis} is known once an epoch has ended."
        hint = f"`orch plot {ids} --metric loss --x step` draws what there is."
    else:
        why, hint = f"Nothing of {ids} has been measured.", f"`orch status {jobs[0].id}` says how far it is."
    return errors.OrchError("There is nothing to draw yet.", why=why, hint=hint)


def _chosen(jobs: Sequence[Job], metrics: Sequence[curves.Metric]) -> tuple[curves.Metric, ...]:
    return tuple(dict.fromkeys(metrics)) or (OF_ONE if len(jobs) == 1 else OF_SEVERAL)


def _there(store: Store, jobs: Sequence[Job], axis: curves.Axis) -> list[curves.Metric]:
    """Return the metrics of which some job has a point."""
    every = tuple(curves.Metric)
    return [metric for metric in every if any(_curves(store, job, (metric,), axis)[0].points for job in jobs)]


def labels(jobs: Sequence[Job]) -> dict[str, str]:
    """Return what each job is called beside the others: its name where no other has it, else its id."""
    names = [job.name for job in jobs]
    return {job.id: job.name if job.name and names.count(job.name) == 1 else job.id for job in jobs}


def _curves(store: Store, job: Job, chosen: Sequence[curves.Metric], axis: curves.Axis) -> list[curves.Curve]:
    epochs = store.epochs(job.id)
    steps = store.steps(job.id, name="loss") if curves.Metric.LOSS in chosen else []
    return [curves.curve(job, metric, axis, epochs=epochs, steps=steps) for metric in chosen]


def _lines(together: Sequence[curves.Curve], named: dict[str, str]) -> list[Line]:
    one_metric = len({one.metric for one in together}) == 1
    lines = []
    for one in together:
        metric = one.metric.replace("_", " ")
        label = named[one.job] if one_metric else metric if len(named) == 1 else f"{named[one.job]} {metric}"
        lines.append(Line(label=label, curve=one))
    return lines
