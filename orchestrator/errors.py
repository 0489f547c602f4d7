"""Every error that orch raises on purpose.

    OrchError                     1   something orch can explain
    ├── UsageError                2   the request itself is wrong
    │   ├── InvalidSpec           2   a job spec or job file that cannot be run
    │   ├── InvalidSetting        2   a setting that orch does not know or cannot use
    │   └── IdempotencyConflict   2   the same key was used with another spec
    ├── IllegalMove               1   the job is in no state for that verb
    ├── NotFound                  3   no such job, or no such thing of it
    │   └── Ambiguous             3   several jobs answer to that text
    ├── Unavailable               4   something orch stands on is out of reach
    │   ├── DatabaseUnavailable   4
    │   ├── BrokerUnavailable     4
    │   └── SchemaMismatch        4   the database speaks another version
    ├── JobFailed                 5   what was waited for ended badly
    ├── JobCancelled              6
    ├── TimedOut                  7
    ├── Stale                     1   a fenced write came too late: the job has another owner
    └── StageFailed               1   a stage cannot go on; carries the reason of the job's failure

The class docstring is the default message; the number is the exit code of the command line.
"""

from typing import ClassVar


class OrchError(Exception):
    """Something went wrong that orch can explain.

    `message` says what happened, `why` says why, `hint` names a command or a change to try.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, why: str | None = None, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.why = why
        self.hint = hint
        super().__init__(self.message)


class UsageError(OrchError):
    """The request cannot be understood."""

    exit_code = 2


class InvalidSpec(UsageError):
    """The job spec is not one that can be run."""


class InvalidSetting(UsageError):
    """A setting is unknown or has a value that cannot be used."""


class IdempotencyConflict(UsageError):
    """That idempotency key already belongs to a job with another spec."""


class IllegalMove(OrchError):
    """The job is in no state for that."""


class NotFound(OrchError):
    """There is no such job."""

    exit_code = 3


class Ambiguous(NotFound):
    """Several jobs answer to that."""

    def __init__(self, message: str, *, candidates: tuple[str, ...]) -> None:
        self.candidates = candidates
        super().__init__(
            message, why="It matches " + ", ".join(candidates) + ".", hint="Give a whole id, or more of it."
        )


class Unavailable(OrchError):
    """Something that orch stands on is out of reach."""

    exit_code = 4


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached.

    `unheard`: a commit was on its way, and whether it took place is not known.
    """

    def __init__(
        self, message: str | None = None, *, why: str | None = None, hint: str | None = None, unheard: bool = False
    ) -> None:
        self.unheard = unheard
        super().__init__(message, why=why, hint=hint)


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached."""


class SchemaMismatch(Unavailable):
    """The database has another schema version than this orch."""


class JobFailed(OrchError):
    """The job failed."""

    exit_code = 5


class JobCancelled(OrchError):
    """The job was cancelled."""

    exit_code = 6


class TimedOut(OrchError):
    """The time given was not enough."""

    exit_code = 7


class Stale(OrchError):
    """The job belongs to another attempt now: nothing more may be written."""


class StageFailed(OrchError):
    """A stage of the job cannot go on.

    `reason` is a member of `orchestrator.core.states.Reason`, held as text so that this module stands on nothing.
    """

    def __init__(self, message: str, *, reason: str, why: str | None = None, hint: str | None = None) -> None:
        self.reason = reason
        super().__init__(message, why=why, hint=hint)
