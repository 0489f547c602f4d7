"""Which checkpoints stay on disk: a pure rule. Only the holder of a job's lease deletes the others."""

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.core import specfields, specs
from orchestrator.core.jobs import Checkpoint

#: The newest ones that stay where a job does not say it, so that a damaged last one costs little.
USUAL: specfields.Keep = specs.JobSpec.model_fields["keep"].default


def marked(checkpoints: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a line, newest first, with the flags `best` and `last` on the right ones.

    Of equally accurate checkpoints the earliest is the best.
    """
    line = sorted(checkpoints, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt), reverse=True)
    measured = [checkpoint for checkpoint in reversed(line) if checkpoint.accuracy is not None]
    best = max(measured, key=lambda checkpoint: checkpoint.accuracy or 0.0, default=None)
    return tuple(replace(checkpoint, best=checkpoint is best, last=checkpoint is line[0]) for checkpoint in line)


def superfluous(checkpoints: Iterable[Checkpoint], *, keep: specfields.Keep) -> tuple[Checkpoint, ...]:
    """Return what may be deleted of a job's winning line: all but the newest, as many as `keep` says, and the best."""
    if keep == "all":
        return ()
    newest_first = sorted(checkpoints, key=lambda checkpoint: checkpoint.step, reverse=True)
    return tuple(checkpoint for checkpoint in newest_first[keep:] if not checkpoint.best)
