"""Following jobs until they end: changes, output, the verdict. Short reads, so that nobody is held up by a watcher."""

import time
from collections.abc import Iterable, Iterator, Sequence

from orchestrator import config, errors
from orchestrator.core.jobs import Job, JobFilter
from orchestrator.core.states import JobState
from orchestrator.service import query
from orchestrator.store.base import Store

#: Seconds between two looks at the database.
INTERVAL = 0.5

#: Jobs of one look.
AT_ONCE = 500


def changes(store: Store, job_id: str, *, interval: float = INTERVAL, timeout: float | None = None) -> Iterator[Job]:
    """Yield the job as it is, then at each change, last when it has ended.

    Raises:
        TimedOut: it has not ended after `timeout` seconds.

    """
    deadline = _deadline(timeout)
    seen: Job | None = None
    while True:
        job = store.get(job_id)
        if job != seen:
            yield job
            seen = job
        if job.final:
            return
        _pause(interval, deadline, (job_id,))


def watched(
    store: Store, settings: config.Settings, job_id: str, *, interval: float = INTERVAL
) -> Iterator[tuple[Job, frozenset[str]]]:
    """Yield the job like `changes`, and the id of the worker that holds it where that one is not heard of."""
    seen: tuple[Job, frozenset[str]] | None = None
    while True:
        job = store.get(job_id)
        holders = [worker for worker in query.living(store) if worker.id == job.worker] if job.worker else []
        now = job, query.silent_ids(holders, settings)
        if now != seen:
            yield now
            seen = now
        if job.final:
            return
        time.sleep(interval)


def wait(
    store: Store, job_ids: Iterable[str], *, interval: float = INTERVAL, timeout: float | None = None
) -> Iterator[Job]:
    """Yield each job when it has ended, in the order of their ends.

    Raises:
        TimedOut: some have not ended after `timeout` seconds.

    """
    deadline = _deadline(timeout)
    waiting = list(dict.fromkeys(job_ids))
    while True:
        for job in _looked_at(store, waiting):
            if job.final:
                waiting.remove(job.id)
                yield job
        if not waiting:
            return
        _pause(interval, deadline, waiting)


def _looked_at(store: Store, job_ids: Sequence[str]) -> list[Job]:
    """Return jobs, many by one look; raises NotFound where one has been deleted."""
    if len(job_ids) == 1:
        return [store.get(job_ids[0])]
    portions = [tuple(job_ids[start : start + AT_ONCE]) for start in range(0, len(job_ids), AT_ONCE)]
    found = {job.id: job for ids in portions for job in store.jobs(JobFilter(ids=ids))}
    return [found.get(job_id) or store.get(job_id) for job_id in job_ids]


def lines(
    store: Store, job_id: str, *, last: int | None = None, follow: bool = False, interval: float = INTERVAL
) -> Iterator[str]:
    """Yield the lines of the job's output, all attempts in order; with `follow` until the job has ended.

    `last` leaves out all but so many of the lines that are there at the beginning.
    """
    after: tuple[int, int] | None = None
    rest = ""
    while True:
        final = store.get(job_id).final  # before the read, so that nothing written in between is missed
        for chunk in store.logs(job_id, after=after):
            new_attempt = after is not None and chunk.attempt != after[0]
            rest += "\n" * bool(rest and new_attempt) + chunk.text
            after = (chunk.attempt, chunk.sequence)
        *whole, rest = rest.split("\n")
        ended = final or not follow
        if ended and rest:
            whole.append(rest)
        yield from whole if last is None else whole[max(0, len(whole) - last) :]
        if ended:
            return
        last = None
        time.sleep(interval)


def verdict(jobs: Iterable[Job]) -> None:
    """Say nothing where all succeeded.

    Raises:
        JobFailed: one of them failed.
        JobCancelled: one of them was cancelled, and none failed.

    """
    ended = list(jobs)
    for job in ended:
        if job.state is JobState.FAILED:
            raise errors.JobFailed(
                f"Job {job.id} failed: {job.reason}.",
                why=job.error,
                hint=job.hint or f"`orch logs {job.id}` shows its output, `orch retry {job.id}` tries again.",
            )
    for job in ended:
        if job.state is JobState.CANCELLED:
            raise errors.JobCancelled(f"Job {job.id} was cancelled.", hint=f"`orch retry {job.id}` queues it again.")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _pause(interval: float, deadline: float | None, waiting: Iterable[str]) -> None:
    if deadline is None:
        time.sleep(interval)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise errors.TimedOut(
            f"Not ended in time: {', '.join(waiting)}.",
            hint=f"They go on: `orch wait {' '.join(waiting)}` waits for them.",
        )
    time.sleep(min(interval, left))
