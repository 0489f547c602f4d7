"""Whether a node that is to leave when it is idle may go: nothing runs there, and nothing waits that ever could."""

import functools

from orchestrator.core import jobs, resources, specs, states
from orchestrator.store import base

#: Jobs that are looked at first: to read all that wait can take half a minute.
_LOOKED_AT = 50


def is_idle(store: base.Store, *, worker: str, root: str, offer: resources.Offer) -> bool:
    """Whether no job concerns a worker of this root that offers so much; one look, lest a job move between two."""
    if any(lease.worker == worker for lease in store.leases()):
        return False  # the usual answer, and the cheap one
    concerns = functools.partial(_concerns, worker=worker, root=root, offer=offer)
    found = _unfinished(store, limit=_LOOKED_AT)  # of a hundred thousand the first ones nearly always tell
    if len(found) == _LOOKED_AT and not any(map(concerns, found)):
        found = _unfinished(store)
    return not any(map(concerns, found))


def _unfinished(store: base.Store, *, limit: int | None = None) -> list[jobs.Job]:
    unfinished = (states.JobState.QUEUED, states.JobState.RUNNING)
    return store.jobs(jobs.JobFilter(states=unfinished, limit=limit, oldest_first=True))


def _concerns(job: jobs.Job, *, worker: str, root: str, offer: resources.Offer) -> bool:
    if job.state is states.JobState.RUNNING:
        return job.worker == worker
    return (
        job.artifact_root in {None, root}
        and job.spec_version <= specs.SPEC_VERSION
        and not job.demand.unmet(job.stage, offer)
    )
