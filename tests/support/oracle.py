"""The one oracle of every fault test: wait until nothing is under way, then nothing may be found."""

from collections.abc import Iterable

from orchestrator.core import jobs, states
from orchestrator.service import audit
from tests.support import running
from tests.support.waiting import until

_UNDER_WAY = jobs.JobFilter(states=(states.JobState.QUEUED, states.JobState.RUNNING))


def holds(installed: running.Installation, *, promised: Iterable[str] = (), seconds: float = 90) -> None:
    """Wait until no job waits or runs, and assert that the audit finds nothing."""
    until(lambda: not installed.store.jobs(_UNDER_WAY), seconds=seconds, every=0.05)
    found = audit.audit(installed.settings, installed.store, promised=promised)
    assert found == [], "\n".join(f"{finding.kind} {finding.job}: {finding.sentence}" for finding in found)
