"""Steering many jobs at once: those of a state, a tag or a user."""

from collections.abc import Callable, Iterable

from orchestrator import config, errors
from orchestrator.core.jobs import MAX_PRIORITY, Job, JobFilter
from orchestrator.core.states import JobState
from orchestrator.core.verbs import Change, Changed, Verb
from orchestrator.service import bell, submit
from orchestrator.store.base import Store

#: Characters of a note.
MAX_NOTE = 2000

#: What queues jobs again.
_QUEUEING = frozenset({Verb.RESUME, Verb.RETRY, Verb.EXTEND})


def chosen(store: Store, which: JobFilter, *, of_use: Iterable[JobState]) -> list[Job]:
    """Return the jobs that a filter means, the oldest first; without states, those where the verb is of use."""
    states = which.states or tuple(of_use)
    found = store.jobs(JobFilter(states=states, tags=which.tags, user=which.user, reasons=which.reasons))
    return list(reversed(found))


def steer(
    settings: config.Settings, store: Store, change: Change, jobs: Iterable[Job], *, hear: Callable[[Changed], None]
) -> errors.BrokerUnavailable | None:
    """Do the same to many jobs, and ring for what is queued again; return why that was not done.

    `hear` is told what became of each, once it is committed: whoever stops half-way knows.

    Raises:
        UsageError: a priority or note that cannot be.

    """
    _check(change)
    stages = set()
    for one in store.steer(change, [job.id for job in jobs], actor=submit.user(settings)):
        hear(one)
        if one.job and one.job.state is JobState.QUEUED and not one.job.blocked:
            stages.add(one.job.stage)
    away = [bell.ring(settings, stage) for stage in sorted(stages)] if change.verb in _QUEUEING else []
    return next((error for error in away if error), None)


def _check(change: Change) -> None:
    if abs(change.priority) > MAX_PRIORITY:
        raise errors.UsageError(
            f"{change.priority} is no priority.", hint=f"Use one between {-MAX_PRIORITY} and {MAX_PRIORITY}."
        )
    if change.note is not None and (len(change.note) > MAX_NOTE or not change.note.replace("\n", " ").isprintable()):
        raise errors.UsageError("This cannot be a note.", why=f"It has up to {MAX_NOTE} printable characters.")
