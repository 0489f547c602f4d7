"""When a worker is no longer to be trusted with jobs: a pure rule over how its attempts ended."""

from collections.abc import Iterable

from orchestrator.core.jobs import Attempt
from orchestrator.core.states import Reason

#: Reasons that may be the worker's or its host's fault; the others are the job's, or a person's.
AGAINST_WORKER = frozenset({Reason.INTERNAL, Reason.GPU_ERROR, Reason.LOST, Reason.DISK_FULL, Reason.STALLED})


def longest(ended: Iterable[Attempt]) -> tuple[Attempt, ...]:
    """Return the longest row of failures of different jobs, one each, that no success has broken; newest first.

    `ended` are a worker's attempts, newest first. A row is one device's in one stage: where every training fails, the
    downloads before them succeed all the same. A job that fails again and again counts once: it may be its own fault.
    """
    rows: dict[tuple[str, str], dict[str, Attempt]] = {}
    broken = set()
    for attempt in ended:
        place = (attempt.stage, attempt.device)
        if attempt.outcome == "done":
            broken.add(place)
        elif attempt.reason in AGAINST_WORKER and place not in broken:
            rows.setdefault(place, {}).setdefault(attempt.job_id, attempt)
    return max((tuple(row.values()) for row in rows.values()), key=len, default=())


def told(row: Iterable[Attempt]) -> str:
    """Return a row of failures in words."""
    failed = [f"{attempt.job_id} ({attempt.reason})" for attempt in row]
    return f"It failed {len(failed)} jobs in a row: {', '.join(failed)}."
