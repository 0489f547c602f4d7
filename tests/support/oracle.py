"""The one oracle of every fault test: wait until nothing is under way, then nothing may be found."""

from collections.abc import Collection, Iterable

from orchestrator import config
from orchestrator.core import jobs, states
from orchestrator.core.findings import Kind
from orchestrator.service import audit
from orchestrator.store import base
from tests.support import running
from tests.support.waiting import patiently, until

_UNDER_WAY = jobs.JobFilter(states=(states.JobState.QUEUED, states.JobState.RUNNING))


def holds(
    installed: running.Installation, *, promised: Iterable[str] = (), but: Collection[Kind] = (), seconds: float = 90
) -> None:
    """Wait until no job waits or runs, then judge."""
    until(lambda: not patiently(installed.store.jobs, _UNDER_WAY), seconds=seconds)
    judge(installed.settings, installed.store, promised=promised, but=but)


def judge(
    settings: config.Settings, store: base.Store, *, promised: Iterable[str] = (), but: Collection[Kind] = ()
) -> None:
    """Assert that the audit finds nothing but what the test has damaged itself, and that this is found."""
    found = patiently(audit.audit, settings, store, promised=tuple(promised))
    said = "\n".join(f"{finding.kind} {finding.job}: {finding.sentence}" for finding in found)
    assert {finding.kind for finding in found} == set(but), said
