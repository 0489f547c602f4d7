"""Jobs in a row: the columns that `list` and `status` share."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator import errors
from orchestrator.cli import render, words
from orchestrator.core import masking
from orchestrator.core.jobs import Job
from orchestrator.core.states import JobState
from orchestrator.service import query

if TYPE_CHECKING:
    from rich.text import Text


#: Columns that are shown only where they are asked for.
_ON_DEMAND = ("PRIORITY", "STAGE", "EPOCHS", "LR", "PARENT", "DEMAND", "NOTE")

#: Other names of columns, as the metrics of a job are called elsewhere.
_ALSO = {"val_accuracy": "best", "best_accuracy": "best"}


def show(
    jobs: Iterable[Job],
    *,
    silent: Container[str],
    to: render.Mode,
    prefix: str | None = None,
    only: Sequence[str] | None = None,
) -> None:
    """Print jobs, one a line; `silent` are the ids of workers that have not been heard of, `only` names columns."""
    render.table(chosen(silent, only), jobs, to=to, prefix=prefix)


def chosen(silent: Container[str], only: Sequence[str] | None = None) -> Sequence[render.Column[Job]]:
    """Return the columns that are named, whole; without names, the usual ones. Raises UsageError."""
    if only is None:
        return [column for column in columns(silent) if column.title not in _ON_DEMAND]
    known = {_key(column.title): column for column in columns(silent)}
    return [replace(_known(known, name), wide=False) for name in only]


def ordered(jobs: Iterable[Job], silent: Container[str], key: str) -> list[Job]:
    """Return jobs by the value of a column, the highest first where a - stands before it; those without one last."""
    column = _known({_key(column.title): column for column in columns(silent)}, key.removeprefix("-"))
    valued = [(column.value(job), job) for job in jobs]
    having: list[tuple[Any, Job]] = [pair for pair in valued if pair[0] is not None]
    having.sort(key=lambda pair: pair[0], reverse=key.startswith("-"))
    return [job for _, job in having] + [job for value, job in valued if value is None]


def _known(known: dict[str, render.Column[Job]], name: str) -> render.Column[Job]:
    name = _ALSO.get(name.lower(), name)
    if name.lower() not in known:
        raise errors.UsageError(f"There is no column {name[:20]!a}.", hint=f"Known are {', '.join(known)}.")
    return known[name.lower()]


def _key(title: str) -> str:
    return title.lower().replace(" ", "_")


def state(job: Job, silent: Container[str]) -> "Text":
    """Return what the job is at, with the symbol of its state."""
    word = query.doing(job, silent)
    return render.state(word, of=word if word == query.SILENT else job.state)


def columns(silent: Container[str]) -> Sequence[render.Column[Job]]:
    """Return all columns of a job."""
    now = datetime.now(UTC)
    return (
        render.Column(title="JOB", value=lambda job: job.id),
        render.Column(
            title="STATE",
            value=lambda job: query.doing(job, silent),
            shown=lambda job: state(job, silent),
        ),
        render.Column(title="NAME", value=lambda job: job.name, elastic=True),
        render.Column(title="NETWORK", value=lambda job: job.spec.network, wide=True),
        render.Column(
            title="DATA",
            value=lambda job: masking.data(job.spec.data),
            shown=lambda job: _short(masking.data(job.spec.data)),
            wide=True,
            elastic=True,
        ),
        render.Column(title="PROGRESS", value=share, shown=_how_far),
        render.Column(
            title="BEST",
            value=lambda job: job.best_accuracy,
            shown=lambda job: words.percent(job.best_accuracy),
            right=True,
        ),
        render.Column(title="TAGS", value=lambda job: job.tags, wide=True, elastic=True),
        render.Column(title="USER", value=lambda job: job.user, wide=True),
        render.Column(
            title="SUBMITTED", value=lambda job: job.submitted_at, shown=lambda job: words.ago(job.submitted_at, now)
        ),
        render.Column(
            title="TOOK",
            value=lambda job: took(job, now),
            shown=lambda job: words.duration(took(job, now)),
            right=True,
            wide=True,
        ),
        render.Column(title="PRIORITY", value=lambda job: job.priority, right=True),
        render.Column(title="STAGE", value=lambda job: job.stage),
        render.Column(title="EPOCHS", value=lambda job: job.spec.epochs, right=True),
        render.Column(title="LR", value=lambda job: job.spec.lr, right=True),
        render.Column(title="PARENT", value=lambda job: job.parent),
        render.Column(title="DEMAND", value=lambda job: job.demand.said(), elastic=True),
        render.Column(title="NOTE", value=lambda job: job.note, elastic=True),
    )


def took(job: Job, now: datetime) -> float | None:
    """Return the seconds since the run began, up to its end."""
    if job.started_at is None:
        return None
    return max(0.0, ((job.finished_at or now) - job.started_at).total_seconds())


def share(job: Job) -> float | None:
    """Return how much of its stage a running job has done, 0 to 1; None where nobody knows, or it does not run."""
    progress = job.progress
    if job.state is not JobState.RUNNING or not progress.total:
        return None
    return round(progress.done / progress.total, 4)


def _how_far(job: Job) -> str:
    return str(job.reason) if job.reason else words.progress(job)


def _short(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]
