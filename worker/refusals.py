"""How a stage says that its input will not do: no retry helps, other input does."""

from orchestrator import errors
from orchestrator.core import states


def refused(message: str, *, why: str | None = None, hint: str) -> errors.StageFailed:
    """Return the error that fails the job for good, with what is wrong, why, and what to do."""
    return errors.StageFailed(message, reason=states.Reason.BAD_INPUT, why=why, hint=hint)
