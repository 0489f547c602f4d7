"""`--batch-size auto`: the largest batch that fits, decided once, when the job is submitted; then it is a number.

What fits is known for CPUs of this host alone: the prediction was fitted to them, and no worker says what memory its
host or its GPU has. The number rests on what the memory is, not on what of it is free, so that one recipe always gets
the same.
"""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil

from orchestrator import config, errors
from orchestrator.core import memory
from orchestrator.core.jobs import Worker
from orchestrator.core.specs import JobSpec
from orchestrator.service import advice, query
from orchestrator.service.experience import Experience
from orchestrator.store import sql

#: Share of a slot's memory that a training may take: pictures are loaded beside it, and others live there as well.
SHARE = 0.75

#: Limits of the memory of a container, by version of control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_HINT = "Give a number: `orch submit --dry-run --batch-size N` says what it takes."


def largest(spec: JobSpec, settings: config.Settings) -> tuple[int, str]:
    """Return the largest batch for a recipe whose own is the smallest, and why it is that.

    Raises:
        InvalidSpec: it cannot be known, or none fits.

    """
    workers, pictures = _known(spec, settings)
    room = round(SHARE * _memory() / _slots(workers))
    batch = memory.largest_batch(spec, room=room, pictures=pictures)
    if batch is None:
        raise errors.InvalidSpec(
            "batch_size = 'auto': not even a batch of two fits.",
            why=f"It takes {_gib(memory.peak(spec, mode=spec.memory))}, and a training may have {_gib(room)}.",
            hint="Take a leaner --memory, a smaller --image-size or another network.",
        )
    steps = f" and leaves {memory.FEWEST_STEPS} steps an epoch" if pictures else ""
    return batch, f"the largest power of two up to {memory.LARGEST_BATCH} that fits into {_gib(room)}{steps}"


def _known(spec: JobSpec, settings: config.Settings) -> tuple[Sequence[Worker], int | None]:
    """Return the workers, and the number of training pictures where a job has found that out."""
    try:
        with contextlib.closing(sql.open_store(settings, create=False)) as store:
            counts = Experience(store).counts(spec.data)
            return query.living(store), counts["train"] if counts else None
    except (errors.DatabaseUnavailable, errors.SchemaMismatch):
        return (), None


def _slots(workers: Sequence[Worker]) -> int:
    """Return how many trainings share this host's memory; raises InvalidSpec where jobs may train elsewhere."""
    if not advice.on_cpu(workers):
        raise _unknown("What a training takes of a GPU's memory has not been measured.")
    elsewhere = {worker.identity.host for worker in workers} - {socket.gethostname()}
    if elsewhere:
        raise _unknown(f"It may train on {', '.join(sorted(elsewhere))}, whose memory nobody has told.")
    return max(1, sum(len(worker.devices) for worker in workers))


def _unknown(why: str) -> errors.InvalidSpec:
    return errors.InvalidSpec("batch_size = 'auto': what fits cannot be known.", why=why, hint=_HINT)


def _memory() -> int:
    """Return the bytes that this host has, or the container that this is."""
    return min([psutil.virtual_memory().total, *filter(None, map(_limit, _LIMITS))])


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is none: `max` in version 2
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
