"""Steering jobs: one verb, one effect."""

from orchestrator import config, errors
from orchestrator.core.jobs import Job
from orchestrator.service import bell, submit
from orchestrator.store.base import Store


def cancel(settings: config.Settings, store: Store, text: str) -> Job:
    """Cancel the job that `text` means: at once where it waits; where it runs, its supervisor sees the wish.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it has ended already.

    """
    return store.cancel(store.find(text).id, actor=submit.user(settings))


def retry(settings: config.Settings, store: Store, text: str) -> tuple[Job, errors.BrokerUnavailable | None]:
    """Begin a new run of a failed or cancelled job and ring for it; return why the doorbell was not rung.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it has neither failed nor been cancelled.

    """
    job = store.retry(store.find(text).id, actor=submit.user(settings))
    return job, bell.ring(settings, job.stage)
