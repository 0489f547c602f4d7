"""Rows to domain objects, thousands at a time."""

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.core import jobs, specs
from orchestrator.store import base, rows
from tests.contract import parts


def test_a_spec_that_many_jobs_share_is_checked_once(store: base.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    whole = specs.JobSpec.restored

    def counted(kept: Mapping[str, Any]) -> specs.JobSpec:
        checked.append(kept["data"])
        return whole(kept)

    for rate in (1e-3, 1e-4):
        for _ in range(20):
            parts.submit(store, spec=specs.parse({"data": "digits", "lr": rate}))
    rows._parsed.cache_clear()
    monkeypatch.setattr(specs.JobSpec, "restored", counted)
    listed = store.jobs(jobs.JobFilter())
    assert [job.spec.lr for job in listed] == [1e-4] * 20 + [1e-3] * 20
    assert len(checked) == 2
