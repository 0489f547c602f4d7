"""What is listed is of one moment: a job that moves on between two looks is there once, and the counts agree."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy

from orchestrator import config
from orchestrator.core import jobs, states
from orchestrator.service import query
from orchestrator.store import base, sql
from tests.contract import parts


@contextmanager
def behind_the_first_look(store: sql.SqlStore, act: Callable[[], object]) -> Iterator[None]:
    """Act once, behind the first query that lists jobs."""
    done: list[None] = []

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not done and "ORDER BY jobs.seq DESC" in statement:
            done.append(None)
            act()

    engine = store.database._engine
    sqlalchemy.event.listen(engine, "after_cursor_execute", look)
    try:
        yield
    finally:
        sqlalchemy.event.remove(engine, "after_cursor_execute", look)
    assert done


@pytest.fixture
def other(any_settings: config.Settings, any_store: sql.SqlStore) -> Iterator[sql.SqlStore]:
    """Another process's way to the same database."""
    with closing(sql.open_store(any_settings, clock=any_store.clock)) as store:
        yield store


def test_a_job_that_is_claimed_meanwhile_is_listed_once(any_store: sql.SqlStore, other: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    with behind_the_first_look(any_store, lambda: parts.claimed(other)):
        listed = any_store.jobs(jobs.JobFilter(states=query.ACTIVE))
    assert [(row.id, row.state) for row in listed] == [(job.id, states.JobState.QUEUED)]


def test_a_job_that_ends_meanwhile_is_listed_once(any_store: sql.SqlStore, other: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    with behind_the_first_look(any_store, lambda: other.cancel(job.id, actor="ada")):
        listed = query.recent(any_store)
    assert [(row.id, row.state) for row in listed] == [(job.id, states.JobState.CANCELLED)]


def test_a_glance_counts_what_it_lists(
    any_settings: config.Settings, any_store: base.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.submit(any_store)
    counts = any_store.counts()
    parts.claimed(any_store)
    monkeypatch.setattr(any_store, "counts", lambda: counts)  # of a moment ago
    glance = query.overview(any_settings, any_store)
    assert glance.counts.states[states.JobState.QUEUED] == 0
    assert glance.counts.states[states.JobState.RUNNING] == len(glance.active) == 1


def test_a_glance_that_lists_the_first_jobs_counts_all(any_settings: config.Settings, any_store: base.Store) -> None:
    first, *_ = [parts.submit(any_store) for _ in range(3)]
    glance = query.overview(any_settings, any_store, limit=1)
    assert (glance.counts.states[states.JobState.QUEUED], [job.id for job in glance.active]) == (3, [first.id])
