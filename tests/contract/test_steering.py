from typing import Any

import pytest

from orchestrator.core import states, verbs
from orchestrator.store import sql, steering
from tests.contract import parts


def test_who_steers_many_jobs_lets_go_of_them_in_time(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that run cannot beat meanwhile: on a slow line two hundred take longer than a lease."""
    ids = [parts.submit(any_store).id for _ in range(3)]
    transactions, write = list[str](), any_store.database.write

    def counted(*args: Any, place: str, **named: Any) -> Any:
        transactions.append(place)
        return write(*args, place=place, **named)

    monkeypatch.setattr(any_store.database, "write", counted)
    monkeypatch.setattr(steering, "SECONDS", 0.0)
    changed = list(any_store.steer(verbs.Change(verb=verbs.Verb.CANCEL), ids, actor="ada"))
    cancelled = [one.job_id for one in changed if one.job and one.job.state is states.JobState.CANCELLED]
    assert cancelled == ids
    assert transactions == ["store.steer"] * 3
