"""Everything about one job for a pipe: each line begins with what it is."""

from collections.abc import Callable, Container, Iterator

from orchestrator import config
from orchestrator.cli import render, words
from orchestrator.core.jobs import Attempt, Checkpoint, EpochMetric, Evaluation
from orchestrator.service import query


def show(report: query.Report, settings: config.Settings) -> None:
    """Print everything about a job."""
    pipe = render.Mode.PIPE
    for name, value in _facts(report, query.silent_ids(report.workers, settings)):
        render.line("job", name, value)
    for name, value in report.job.spec.masked().model_dump(mode="json").items():
        render.line("spec", name, value)
    render.table(_epoch_columns(), report.epochs, to=pipe, prefix="epoch")
    render.table(_checkpoint_columns(settings), report.checkpoints, to=pipe, prefix="checkpoint")
    if report.evaluation:
        evaluation(report.evaluation)
    render.table(attempt_columns(), report.attempts, to=pipe, prefix="attempt")


def attempt_columns() -> tuple[render.Column[Attempt], ...]:
    """Return the columns of an attempt."""
    return (
        render.Column(title="ATTEMPT", value=lambda attempt: attempt.attempt, right=True),
        render.Column(title="STAGE", value=lambda attempt: attempt.stage),
        render.Column(title="WORKER", value=lambda attempt: attempt.worker),
        render.Column(title="DEVICE", value=lambda attempt: attempt.device, wide=True),
        render.Column(
            title="STARTED", value=lambda attempt: attempt.started_at, shown=lambda a: words.moment(a.started_at)
        ),
        render.Column(
            title="ENDED", value=lambda attempt: attempt.ended_at, shown=lambda a: words.moment(a.ended_at), wide=True
        ),
        render.Column(title="OUTCOME", value=lambda attempt: attempt.outcome),
        render.Column(title="REASON", value=lambda attempt: attempt.reason),
        render.Column(title="FROM STEP", value=lambda attempt: attempt.first_step, right=True, wide=True),
        render.Column(title="TO STEP", value=lambda attempt: attempt.last_step, right=True, wide=True),
    )


def _facts(report: query.Report, silent: Container[str]) -> Iterator[tuple[str, object]]:
    job = report.job
    for name in ("id", "name", "state"):
        yield name, getattr(job, name)
    yield "doing", query.doing(job, silent)
    for name in ("stage", "run", "attempt", "retries", "priority", "tags", "user", "worker", "best_accuracy"):
        yield name, getattr(job, name)
    for name in ("done", "total", "unit", "epoch", "epochs", "rate"):
        yield f"progress_{name}", getattr(job.progress, name)
    yield "eta", None if job.worker in silent else report.eta
    yield "ends_in", (report.ends.low, report.ends.high) if report.ends else None
    yield "ahead", report.ahead
    yield "needs", tuple(one.needs for one in report.needs)
    yield "stranded", query.stranded(job, report.workers, silent)
    yield "stopped_early", report.stopped_early
    for name in ("reason", "error", "hint", "data_hash", "submitted_at", "started_at", "finished_at"):
        yield name, getattr(job, name)


def evaluation(found: Evaluation) -> None:
    """Print what a checkpoint does on a split."""
    render.line("evaluation", found.loss, found.accuracy, found.images, found.checkpoint_sha256)
    for number, name in enumerate(found.classes):
        render.line("class", name, found.precision[number], found.recall[number], *found.confusion[number])


def _epoch_columns() -> tuple[render.Column[EpochMetric], ...]:
    names = ("epoch", "split", "loss", "accuracy", "images", "seconds", "lr", "attempt")
    used = ("cores", "memory", "waiting", "gpu", "gpu_memory")
    return (
        *(render.Column[EpochMetric](title=name, value=_attribute(name)) for name in names),
        *(render.Column[EpochMetric](title=name, value=_of_usage(name)) for name in used),
    )


def _of_usage(name: str) -> Callable[[EpochMetric], object]:
    return lambda row: getattr(row.usage, name, None)


def _checkpoint_columns(settings: config.Settings) -> tuple[render.Column[Checkpoint], ...]:
    names = ("step", "epoch", "attempt", "accuracy", "best", "last", "bytes", "sha256")
    return (
        *(render.Column[Checkpoint](title=name, value=_attribute(name)) for name in names),
        render.Column[Checkpoint](title="path", value=lambda checkpoint: query.checkpoint_file(settings, checkpoint)),
    )


def _attribute(name: str) -> Callable[[object], object]:
    return lambda row: getattr(row, name)
