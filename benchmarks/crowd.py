"""A store with so many jobs, as years of work would leave them: waiting, blocked, ended, of several users."""

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, literal, select, text

from orchestrator.core import ids, ordering, specs, states
from orchestrator.store import attemptmodels, jobmodels, sql

USERS = 7

#: Rows of one statement.
_AT_ONCE = 500

#: Steps of each job that has succeeded: of 100,000 jobs five million rows.
STEPS = 250

_EVERY_STEP = """
    WITH RECURSIVE steps(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < :steps)
    INSERT INTO step_metrics (job_id, attempt, name, step, value)
    SELECT job_id, attempt, 'loss', step, 1.0 / step FROM attempts, steps ORDER BY job_id, step
"""

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def fill(store: sql.SqlStore, count: int) -> None:
    """Add jobs: of ten six wait, two wait for their hour or for another job, two have succeeded."""
    spec = specs.JobSpec()
    common = {
        "spec": spec.model_dump(mode="json"),
        "spec_hash": spec.digest(),
        "spec_version": specs.SPEC_VERSION,
        "wish": states.Wish.RUN,
        "run": 1,
        "tags": ["sweep"],
        "progress_unit": "steps",
        **dict.fromkeys(("attempt", "beat", "retries", "total_retries", "furthest_step", "progress_done"), 0),
    }
    for start in range(0, count, _AT_ONCE):
        rows = [common | _row(number) for number in range(start, min(count, start + _AT_ONCE))]
        store.database.write(functools.partial(_insert, rows), patience=600)
    store.database.write(lambda connection: connection.execute(text("ANALYZE")), patience=600)


def train(store: sql.SqlStore) -> None:
    """Give the jobs that have succeeded an attempt each, and its steps."""
    store.database.write(_attempts, patience=600)
    store.database.write(_steps, patience=600)
    store.database.write(lambda connection: connection.execute(text("ANALYZE")), patience=600)


def _attempts(connection: Connection) -> None:
    job = jobmodels.jobs.c
    what = {
        "job_id": job.id,
        "attempt": literal(1),
        "run": literal(1),
        "stage": literal("train"),
        "worker": literal("bench"),
        "host": literal("bench"),
        "device": literal("cpu"),
        "artifact_root": literal("bench"),
        "started_at": job.submitted_at,
        "ended_at": job.submitted_at,
        "outcome": literal("done"),
        "submitted_by": job.submitted_by,
    }
    ended = select(*what.values()).where(job.state == states.JobState.SUCCEEDED)
    connection.execute(attemptmodels.attempts.insert().from_select(list(what), ended))


def _steps(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Five million look-ups of attempts that are known to be there.
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
    connection.execute(text(_EVERY_STEP), {"steps": STEPS})


def _insert(rows: list[dict[str, Any]], connection: Connection) -> None:
    connection.execute(jobmodels.jobs.insert(), rows)


def _row(number: int) -> dict[str, Any]:
    submitted, priority = _BEGIN + timedelta(seconds=number), number % 5
    hour = datetime(2100, 1, 1, tzinfo=UTC) if number % 20 == 0 else None
    ended = number % 10 in {1, 2}
    return {
        "id": ids.new_id(),
        "submitted_by": f"user-{number % USERS}",
        "priority": priority,
        "rank": ordering.rank(submitted_at=submitted, priority=priority),
        "submitted_at": submitted,
        "state": states.JobState.SUCCEEDED if ended else states.JobState.QUEUED,
        "stage": states.Stage.EVALUATE if ended else (states.Stage.DOWNLOAD, states.Stage.TRAIN)[number % 2],
        "finished_at": submitted if ended else None,
        "blocked": number % 10 in {0, 5},
        "not_before": hour,
        "start_after": hour,
        "artifact_root": "bench" if number % 3 == 0 else None,
    }
