"""What an audit can find: a promise that a job's history, its files or its processes do not keep."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Which promise is broken."""

    MISSING = "missing"  #: a job that was promised is not there
    CHAIN = "chain"  #: the states in its events are no unbroken, legal way
    FINAL = "final"  #: a run ended more than once, or a final job without an end
    FENCE = "fence"  #: a later event with an earlier attempt or run
    ATTEMPT = "attempt"  #: claims and attempts do not match, or one is open that should have ended
    LINE = "line"  #: the winning line does not follow from where attempts resumed
    EPOCHS = "epochs"  #: an epoch on the line is missing, doubled or half
    STEPS = "steps"  #: a step on the line is missing
    REPEATED = "repeated"  #: more steps were repeated than a checkpoint allows
    EVALUATION = "evaluation"  #: a job succeeded without a valid evaluation
    DEVICE = "device"  #: an attempt has more or fewer devices than its job trains on, or one that another has
    CHECKPOINT = "checkpoint"  #: a checkpoint that the database lists is not whole on disk
    RETENTION = "retention"  #: other checkpoints are kept, or marked, than the rule says
    LEFTOVER = "leftover"  #: a file that nobody needs any more
    PROCESS = "process"  #: a process that works for an attempt that has ended


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken promise."""

    kind: Kind
    job: str | None  #: its id, where it is about one
    sentence: str
