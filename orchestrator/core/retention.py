"""Which checkpoints stay on disk: a pure rule. Only the holder of a job's lease deletes the others."""

from collections.abc import Iterable

from orchestrator.core.jobs import Checkpoint

#: The newest ones that stay, so that a damaged last one costs little.
KEEP_LAST = 2


def superfluous(checkpoints: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Return what may be deleted of a job's winning line: all but the last two and the best."""
    newest_first = sorted(checkpoints, key=lambda checkpoint: checkpoint.step, reverse=True)
    return tuple(checkpoint for checkpoint in newest_first[KEEP_LAST:] if not checkpoint.best)
