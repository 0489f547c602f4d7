"""Jobs in a row: the columns that `list` and `status` share."""

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.cli import render, words
from orchestrator.core import masking
from orchestrator.core.jobs import Job
from orchestrator.core.states import JobState
from orchestrator.service import query

if TYPE_CHECKING:
    from rich.text import Text


def show(jobs: Iterable[Job], *, silent: Container[str], to: render.Mode, prefix: str | None = None) -> None:
    """Print jobs, one a line; `silent` are the ids of workers that have not been heard of."""
    render.table(columns(silent), jobs, to=to, prefix=prefix)


def state(job: Job, silent: Container[str]) -> "Text":
    """Return what the job is at, with the symbol of its state."""
    word = query.doing(job, silent)
    return render.state(word, of=word if word == query.SILENT else job.state)


def columns(silent: Container[str]) -> Sequence[render.Column[Job]]:
    """Return the columns of a job."""
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
        render.Column(title="PROGRESS", value=_share, shown=_how_far),
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
    )


def took(job: Job, now: datetime) -> float | None:
    """Return the seconds since the run began, up to its end."""
    if job.started_at is None:
        return None
    return max(0.0, ((job.finished_at or now) - job.started_at).total_seconds())


def _share(job: Job) -> float | None:
    progress = job.progress
    if job.state is not JobState.RUNNING or not progress.total:
        return None
    return round(progress.done / progress.total, 4)


def _how_far(job: Job) -> str:
    return str(job.reason) if job.reason else words.progress(job)


def _short(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]
