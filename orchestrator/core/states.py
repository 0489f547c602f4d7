"""The states of jobs and workers, and the one table of legal moves."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  #: waits for a worker (or for its `not_before`)
    RUNNING = "running"  #: one attempt holds its lease
    PAUSED = "paused"  #: set aside by a person; keeps its checkpoint
    SUCCEEDED = "succeeded"  #: every stage ended well; `extend` starts a new run
    FAILED = "failed"  #: ended with a reason; `retry` starts a new run
    CANCELLED = "cancelled"  #: ended by a person; `retry` starts a new run


class Stage(StrEnum):
    """What a job does next, or does now."""

    DOWNLOAD = "download"  #: bring the data to this host and check it
    TRAIN = "train"  #: train the network, writing checkpoints
    EVALUATE = "evaluate"  #: measure the best checkpoint on the validation split


class Wish(StrEnum):
    """What is wished of a running job, by a person or for an urgent job; its supervisor reads it every second."""

    RUN = "run"  #: go on
    YIELD = "yield"  #: checkpoint, then go back into the queue: an urgent job needs the device
    PAUSE = "pause"  #: checkpoint, then stand aside
    CANCEL = "cancel"  #: stop for good


class Reason(StrEnum):
    """Why an attempt or a job failed."""

    BAD_INPUT = "bad_input"  #: the data cannot be trained on
    USER_ERROR = "user_error"  #: the recipe cannot be run on this data
    OOM = "oom"  #: out of memory, on the device or the host
    GPU_ERROR = "gpu_error"  #: the device failed
    DIVERGED = "diverged"  #: the loss is not finite
    STALLED = "stalled"  #: alive, but no progress for the stall time
    LOST = "lost"  #: the worker or its training process vanished
    TIMEOUT = "timeout"  #: the job ran longer than it may
    DISK_FULL = "disk_full"  #: no space for data or checkpoints
    POISON = "poison"  #: every worker that took it died
    NO_VALID_CHECKPOINT = "no_valid_checkpoint"  #: checkpoints exist, none of them verifies
    UNREACHABLE = "unreachable"  #: the data source does not answer
    DEPENDENCY = "dependency"  #: a job it waited for did not succeed
    INTERNAL = "internal"  #: a defect in orch


class WorkerState(StrEnum):
    """Where a worker stands."""

    ACTIVE = "active"  #: claims jobs
    SPENT = "spent"  #: has taken on as many jobs as it may: sees them to their end, and begins no other training
    DRAINING = "draining"  #: finishes what it has, claims nothing
    UNHEALTHY = "unhealthy"  #: failed too many jobs in a row
    STOPPED = "stopped"  #: said goodbye
    LOST = "lost"  #: its heartbeat stood still


class WorkerWish(StrEnum):
    """What a person wants of a worker; it reads it at every beat."""

    RUN = "run"  #: claim jobs
    DRAIN = "drain"  #: finish what it has, claim nothing


class After(StrEnum):
    """Which end of another job a job waits for."""

    OK = "ok"  #: its success; any other end fails the one that waits
    ANY = "any"  #: its end, whatever it is


class Ended(StrEnum):
    """How a job that another one waits for has ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"  #: before its end


#: What ends a run of a job.
FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

#: In these a job may go on with a download that broke off: one that failed, when it is retried.
MAY_GO_ON = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED, JobState.FAILED})

#: Every legal move. A move to `queued` from a final state begins a new run.
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset({JobState.QUEUED}),  # by `extend` alone
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}

FIRST_STAGE = Stage.DOWNLOAD

#: The stage after each stage; a job whose last stage ended well has succeeded.
NEXT_STAGE: dict[Stage, Stage | None] = {
    Stage.DOWNLOAD: Stage.TRAIN,
    Stage.TRAIN: Stage.EVALUATE,
    Stage.EVALUATE: None,
}

#: How a running job's stage is said to people.
DOING: dict[Stage, str] = {
    Stage.DOWNLOAD: "downloading",
    Stage.TRAIN: "training",
    Stage.EVALUATE: "evaluating",
}

#: How a running job that is to stop is said to stand.
STOPPING: dict[Wish, str] = {Wish.CANCEL: "cancelling", Wish.PAUSE: "pausing", Wish.YIELD: "yielding"}

#: All that a running job may be said to be at.
WHILE_RUNNING = frozenset({*DOING.values(), *STOPPING.values()})


def may_move(old: JobState, new: JobState) -> bool:
    """Whether a job may go from `old` to `new`."""
    return new in MOVES[old]
