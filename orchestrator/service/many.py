"""Steering many jobs at once: those of a state, a tag or a user."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator import config, errors
from orchestrator.core.jobs import MAX_NAME, MAX_PRIORITY, Job, JobFilter, is_word
from orchestrator.core.states import JobState
from orchestrator.core.verbs import Change, Changed, Verb
from orchestrator.service import bell, submit
from orchestrator.store.base import Store

#: Characters of a note.
MAX_NOTE = 2000


#: What queues jobs again.
_QUEUEING = frozenset({Verb.RESUME, Verb.RETRY, Verb.EXTEND})


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of many jobs."""

    changed: tuple[Changed, ...]
    broker: errors.BrokerUnavailable | None  #: why the doorbell was not rung for what is queued again

    @property
    def refused(self) -> list[Changed]:
        """Those that stay as they are."""
        return [one for one in self.changed if one.job is None]


def chosen(store: Store, which: JobFilter, *, of_use: Iterable[JobState]) -> list[Job]:
    """Return the jobs that a filter means, the oldest first; without states, those where the verb is of use."""
    states = which.states or tuple(of_use)
    found = store.jobs(JobFilter(states=states, tags=which.tags, user=which.user, reasons=which.reasons))
    return list(reversed(found))


def steer(settings: config.Settings, store: Store, change: Change, jobs: Iterable[Job]) -> Done:
    """Do the same to many jobs, and ring for what is queued again.

    Raises:
        UsageError: a priority, tag or note that cannot be.

    """
    _check(change)
    changed = tuple(store.steer(change, [job.id for job in jobs], actor=submit.user(settings)))
    stages = {one.job.stage for one in changed if one.job and one.job.state is JobState.QUEUED and not one.job.blocked}
    away = [bell.ring(settings, stage) for stage in sorted(stages)] if change.verb in _QUEUEING else []
    return Done(changed=changed, broker=next((error for error in away if error), None))


def _check(change: Change) -> None:
    if abs(change.priority) > MAX_PRIORITY:
        raise errors.UsageError(
            f"{change.priority} is no priority.", hint=f"Use one between {-MAX_PRIORITY} and {MAX_PRIORITY}."
        )
    for tag in change.add:
        if not is_word(tag):
            raise errors.UsageError(
                f"{tag[:20]!a} cannot be a tag.", why=f"It has 1 to {MAX_NAME} printable characters."
            )
    if change.note is not None and (len(change.note) > MAX_NOTE or not change.note.replace("\n", " ").isprintable()):
        raise errors.UsageError("This cannot be a note.", why=f"It has up to {MAX_NOTE} printable characters.")
