from datetime import UTC, datetime

import pytest

from orchestrator.core import jobs, streaks
from orchestrator.core.states import Reason, Stage


def ended(job: str, how: str | Reason, *, stage: Stage = Stage.TRAIN, device: str = "CPU") -> jobs.Attempt:
    """Return an attempt that ended as `how` says: an outcome, or the reason of a failure."""
    reason = how if isinstance(how, Reason) else None
    return jobs.Attempt(
        job_id=job,
        attempt=1,
        run=1,
        stage=stage,
        worker="w",
        host="h",
        device=device,
        started_at=datetime(2026, 11, 24, tzinfo=UTC),
        ended_at=datetime(2026, 11, 24, tzinfo=UTC),
        outcome="failed" if reason else how,
        reason=reason,
        resumed_from=None,
        first_step=None,
        last_step=None,
    )


LOST, INTERNAL, DIVERGED = Reason.LOST, Reason.INTERNAL, Reason.DIVERGED


@pytest.mark.parametrize(
    ("attempts", "jobs_in_a_row"),
    [
        ([], ""),
        ([ended("a", LOST), ended("b", INTERNAL), ended("c", Reason.DISK_FULL)], "abc"),
        ([ended("a", LOST), ended("a", LOST), ended("b", LOST)], "ab"),  # a job counts once: it may be its own fault
        ([ended("a", LOST), ended("b", "done"), ended("c", LOST)], "a"),  # a success ends the row
        ([ended("a", LOST), ended("b", DIVERGED), ended("c", LOST)], "ac"),  # the user's faults say nothing
        ([ended("a", LOST), ended("b", "drained"), ended("c", LOST)], "ac"),  # and neither does a drain
        ([ended("a", LOST), ended("a", "done", stage=Stage.DOWNLOAD), ended("b", LOST)], "ab"),  # stages stand alone
        ([ended("a", LOST, device="0"), ended("b", "done", device="1"), ended("c", LOST, device="0")], "ac"),
        ([ended("a", LOST, device="0"), ended("b", LOST, device="1"), ended("c", LOST, device="1")], "bc"),
    ],
)
def test_failures_in_a_row(attempts: list[jobs.Attempt], jobs_in_a_row: str) -> None:
    assert "".join(attempt.job_id for attempt in streaks.longest(attempts)) == jobs_in_a_row


def test_a_row_is_told_with_jobs_and_reasons() -> None:
    row = streaks.longest([ended("a", LOST), ended("b", INTERNAL)])
    assert streaks.told(row) == "It failed 2 jobs in a row: a (lost), b (internal)."
