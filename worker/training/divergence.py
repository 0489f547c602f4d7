"""The failure of a training whose numbers are not finite."""

from orchestrator import errors
from orchestrator.core import states


def failure(said: str, *, lr: float) -> errors.StageFailed:
    """Return it; `said` names what is not finite, and the step."""
    return errors.StageFailed(
        said,
        reason=states.Reason.DIVERGED,
        why=f"The training diverged at a learning rate of {lr:g}.",
        hint="Try a smaller --lr.",
    )
