"""The one oracle of every fault test: wait until nothing is under way, then nothing may be found."""

from collections.abc import Collection, Iterable
from unittest import mock

from orchestrator import config
from orchestrator.core import jobs, states
from orchestrator.core.findings import Finding, Kind
from orchestrator.service import audit
from orchestrator.store import base
from tests.support import running
from tests.support.waiting import patiently, until

_UNDER_WAY = jobs.JobFilter(states=(states.JobState.QUEUED, states.JobState.RUNNING))

#: Seconds between further looks where something is found: a busy machine takes long over what is under way, and a node
#: clears up once a minute.
_FURTHER = (10.0, 60.0)


def holds(
    installed: running.Installation, *, promised: Iterable[str] = (), but: Collection[Kind] = (), seconds: float = 90
) -> None:
    """Wait until no job waits or runs, then judge."""
    until(lambda: not patiently(installed.store.jobs, _UNDER_WAY), seconds=seconds)
    judge(installed.settings, installed.store, promised=promised, but=but)


def lasting(settings: config.Settings, store: base.Store, *, promised: Collection[str] = ()) -> list[Finding]:
    """Return what the audit finds however long it looks."""
    with mock.patch.object(audit, "_PAUSES", (*audit._PAUSES, *_FURTHER)):
        return patiently(audit.audit, settings, store, promised=promised)


def judge(
    settings: config.Settings, store: base.Store, *, promised: Iterable[str] = (), but: Collection[Kind] = ()
) -> None:
    """Assert that the audit finds nothing but what the test has damaged itself, and that this is found."""
    ids = tuple(promised)
    found = patiently(audit.audit, settings, store, promised=ids) if but else lasting(settings, store, promised=ids)
    said = "\n".join(f"{finding.kind} {finding.job}: {finding.sentence}" for finding in found)
    assert {finding.kind for finding in found} == set(but), said
