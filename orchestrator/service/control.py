"""Steering jobs: one verb, one effect."""

from dataclasses import dataclass

from orchestrator import config, errors
from orchestrator.core.jobs import Job
from orchestrator.core.states import JobState
from orchestrator.service import bell, submit
from orchestrator.store import artifacts
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """A job that was deleted."""

    job: Job  #: as it was
    left_in: tuple[str, ...]  #: ids of the artifact roots whose workers still have to remove its files


def cancel(settings: config.Settings, store: Store, text: str) -> Job:
    """Cancel the job that `text` means: at once where it waits; where it runs, its supervisor sees the wish.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it has ended already.

    """
    return store.cancel(store.find(text).id, actor=submit.user(settings))


def pause(settings: config.Settings, store: Store, text: str) -> Job:
    """Set the job that `text` means aside: at once where it waits; where it runs, after a checkpoint at its next step.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it has ended, or is being cancelled.

    """
    return store.pause(store.find(text).id, actor=submit.user(settings))


def resume(settings: config.Settings, store: Store, text: str) -> tuple[Job, errors.BrokerUnavailable | None]:
    """Let a paused job go on and ring for it; return why the doorbell was not rung.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it is not paused.

    """
    job = store.resume(store.find(text).id, actor=submit.user(settings))
    return job, bell.ring(settings, job.stage) if job.state is JobState.QUEUED else None


def extend(
    settings: config.Settings, store: Store, text: str, *, epochs: int
) -> tuple[Job, errors.BrokerUnavailable | None]:
    """Let a job that has ended go on to so many epochs in all and ring for it; return why the doorbell was not rung.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it has not ended, or would train no more.
        InvalidSpec: there cannot be so many epochs.

    """
    job = store.extend(store.find(text).id, epochs=epochs, actor=submit.user(settings))
    return job, bell.ring(settings, job.stage)


def delete(settings: config.Settings, store: Store, job: Job) -> Deleted:
    """Delete a job with all that is known of it, and its files where they lie on this host.

    Raises:
        NotFound: somebody else has just deleted it.
        IllegalMove: it is running.

    """
    roots = store.delete(job.id, actor=submit.user(settings))
    here = artifacts.known_id(settings.artifact_dir)
    removed = here in roots and artifacts.remove(settings.artifact_dir, job.id)
    return Deleted(job=job, left_in=tuple(root for root in roots if not (removed and root == here)))


def retry(
    settings: config.Settings, store: Store, text: str, *, from_start: bool = False
) -> tuple[Job, errors.BrokerUnavailable | None]:
    """Begin a new run of a failed or cancelled job and ring for it; return why the doorbell was not rung.

    `from_start` forgets its checkpoints.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        IllegalMove: it has neither failed nor been cancelled.

    """
    job = store.retry(store.find(text).id, actor=submit.user(settings), from_start=from_start)
    return job, bell.ring(settings, job.stage)
