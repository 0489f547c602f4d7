"""The audit: whether all that orch promises holds of what the database, the disk and the processes say now.

It only looks. What is merely under way is gone at another look: only what is there each time is found.
"""

import time
from collections.abc import Iterable, Iterator

from orchestrator import config, errors
from orchestrator.core import history, states
from orchestrator.core.findings import Finding, Kind
from orchestrator.core.jobs import JobFilter
from orchestrator.service import holds, leftovers
from orchestrator.store.base import Store

#: Seconds between the looks: longer than a claim needs to clear what earlier attempts left, or a rename; then longer
#: than they take on a busy machine.
_PAUSES = (1.0, 3.0)


def audit(settings: config.Settings, store: Store, *, promised: Iterable[str] = ()) -> list[Finding]:
    """Return what does not hold; nothing where all is well.

    `promised` are ids that `submit` has printed: each must be there or known as deleted. Raises DatabaseUnavailable.
    """
    wanted = tuple(promised)
    seen = list(_look(settings, store, wanted))
    for pause in _PAUSES:
        if not seen:
            break
        time.sleep(pause)
        again = set(_look(settings, store, wanted))
        seen = [finding for finding in seen if finding in again]
    return seen


def _look(settings: config.Settings, store: Store, promised: tuple[str, ...]) -> Iterator[Finding]:
    jobs = store.jobs(JobFilter())
    known = {job.id for job in jobs}
    missing = set(promised) - known
    for job_id in sorted(missing - store.deleted(missing)):
        yield Finding(kind=Kind.MISSING, job=job_id, sentence="it was promised, and there is no such job")
    running = []
    for job in reversed(jobs):
        try:
            rows = store.history(job.id)
        except errors.NotFound:  # it was deleted meanwhile
            continue
        if rows.job.state is states.JobState.RUNNING:
            running.append(rows)
        yield from history.check(rows)
        yield from leftovers.checkpoints(settings, rows)
        yield from leftovers.of_job(settings, rows)
    yield from holds.check(settings, running)
    yield from leftovers.of_nobody(settings, store, jobs)
