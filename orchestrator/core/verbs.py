"""What people do to jobs, one or many at once."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.jobs import Job, require_tags
from orchestrator.core.states import FINAL, JobState


class Verb(StrEnum):
    """What is done."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    EXTEND = "extend"
    PRIORITY = "priority"
    TAG = "tag"
    NOTE = "note"


#: The states in which each verb is of use: those of the jobs that it finds by tag or user.
OF_USE: dict[Verb, frozenset[JobState]] = {
    Verb.CANCEL: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}),
    Verb.PAUSE: frozenset({JobState.QUEUED, JobState.RUNNING}),
    Verb.RESUME: frozenset({JobState.PAUSED}),
    Verb.RETRY: frozenset({JobState.FAILED, JobState.CANCELLED}),
    Verb.EXTEND: FINAL,
    Verb.PRIORITY: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}),
    Verb.TAG: frozenset(JobState),
    Verb.NOTE: frozenset(JobState),
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A verb and what goes with it; raises `errors.InvalidSpec` for what can be no tag."""

    verb: Verb
    priority: int = 0  #: of `priority`
    add: tuple[str, ...] = ()  #: tags
    remove: tuple[str, ...] = ()  #: tags
    note: str | None = None
    from_start: bool = False  #: of `retry`
    epochs: int = 0  #: of `extend`: how many there are to be in all

    def __post_init__(self) -> None:
        require_tags(self.add)


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What became of one job of many."""

    job_id: str
    job: Job | None  #: as it is now; None where it was refused
    refused: str | None = None  #: why
    hint: str | None = None
