"""Who is told of a job. A notice is stored in the transaction of what it tells: neither is there without the other."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection

from orchestrator.core import clock, states, telling
from orchestrator.store import jobmodels

_tellings = jobmodels.tellings.c


def add(connection: Connection, job_id: str, wanted: telling.Telling | None) -> None:
    """Store whom a new job tells what."""
    if wanted is not None and wanted.targets:
        on = sorted(occasion.value for occasion in wanted.on)
        rows = [{"job_id": job_id, "target": target, "occasions": on} for target in dict.fromkeys(wanted.targets)]
        connection.execute(jobmodels.tellings.insert(), rows)


def move(
    connection: Connection, job: Row[Any], *, reason: states.Reason | None, detail: str | None, now: datetime
) -> None:
    """Store the notices of a job's move; `job` is its row after it."""
    if job.state not in states.FINAL and reason is None:
        return
    asked = select(jobmodels.tellings).where(_tellings.job_id == job.id).order_by(_tellings.target)
    for one in connection.execute(asked).all():
        wanted = [telling.Occasion(occasion) for occasion in one.occasions]
        occasion = telling.occasion(wanted, state=job.state, reason=reason)
        if occasion is not None:
            message = _message(job, occasion, reason=reason, detail=detail, now=now)
            notice = {"job_id": job.id, "target": one.target, "message": message, "due_at": clock.AT_ONCE}
            connection.execute(jobmodels.notices.insert().values(tries=0, maybe_heard=0, **notice))


def _message(
    job: Row[Any], occasion: telling.Occasion, *, reason: states.Reason | None, detail: str | None, now: datetime
) -> dict[str, Any]:
    name = f"Job {job.id} ({job.name})" if job.name else f"Job {job.id}"
    error = job.error or detail
    return {
        "schema_version": telling.SCHEMA_VERSION,
        "event": occasion.value,
        "text": telling.sentence(name, occasion, accuracy=job.best_accuracy, reason=reason, error=error),
        "at": now.isoformat(),
        "job": {
            "id": job.id,
            "name": job.name,
            "user": job.submitted_by,
            "tags": list(job.tags),
            "run": job.run,
            "state": job.state.value,
            "reason": reason.value if reason else None,
            "error": error,
            "best_accuracy": job.best_accuracy,
        },
    }
