"""Following jobs until they end: changes, output, the verdict. Short reads, so that nobody is held up by a watcher.

A job may take days: a database that goes away meanwhile, as a server does that is started again, is waited for.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from orchestrator import config, errors
from orchestrator.core.jobs import Job, JobFilter, LogChunk
from orchestrator.core.states import JobState
from orchestrator.service import query
from orchestrator.store.base import Store

#: Seconds between two looks at the database, and between two that find it away.
INTERVAL, AWAY_INTERVAL = 0.5, 1.0

#: Seconds for which a database that is away is waited for.
PATIENCE = 300.0

#: Is told once each time that the database has gone away and is waited for.
Away = Callable[[errors.DatabaseUnavailable], None]

T = TypeVar("T")

#: Jobs of one look.
AT_ONCE = 500


def unheard(_: errors.DatabaseUnavailable) -> None:
    """Take it in for nobody."""


def changes(
    store: Store, job_id: str, *, interval: float = INTERVAL, timeout: float | None = None, away: Away = unheard
) -> Iterator[Job]:
    """Yield the job as it is, then at each change, last when it has ended.

    Raises:
        TimedOut: it has not ended after `timeout` seconds.

    """
    deadline = _deadline(timeout)
    seen: Job | None = None
    while True:
        job = patiently(lambda: store.get(job_id), away, deadline=deadline)
        if job != seen:
            yield job
            seen = job
        if job.final:
            return
        _pause(interval, deadline, (job_id,))


def watched(
    store: Store, settings: config.Settings, job_id: str, *, interval: float = INTERVAL, away: Away = unheard
) -> Iterator[tuple[Job, frozenset[str]]]:
    """Yield the job like `changes`, and the id of the worker that holds it where that one is not heard of."""

    def look() -> tuple[Job, frozenset[str]]:
        job = store.get(job_id)
        holders = [worker for worker in query.living(store) if worker.id == job.worker] if job.worker else []
        return job, query.silent_ids(holders, settings)

    seen: tuple[Job, frozenset[str]] | None = None
    while True:
        now = patiently(look, away)
        if now != seen:
            yield now
            seen = now
        if now[0].final:
            return
        time.sleep(interval)


def wait(
    store: Store,
    job_ids: Iterable[str],
    *,
    interval: float = INTERVAL,
    timeout: float | None = None,
    away: Away = unheard,
) -> Iterator[Job]:
    """Yield each job when it has ended, in the order of their ends.

    Raises:
        TimedOut: some have not ended after `timeout` seconds.

    """
    deadline = _deadline(timeout)
    waiting = list(dict.fromkeys(job_ids))
    while True:
        for job in patiently(lambda: _looked_at(store, waiting), away, deadline=deadline):
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
    store: Store,
    job_id: str,
    *,
    last: int | None = None,
    follow: bool = False,
    interval: float = INTERVAL,
    away: Away = unheard,
) -> Iterator[str]:
    """Yield the lines of the job's output, all attempts in order; with `follow` until the job has ended.

    `last` leaves out all but so many of the lines that are there at the beginning.
    """
    after: tuple[int, int] | None = None
    rest = ""

    def look() -> tuple[bool, list[LogChunk]]:
        final = store.get(job_id).final  # before the read, so that nothing written in between is missed
        return final, store.logs(job_id, after=after)

    while True:
        final, chunks = patiently(look, away) if follow else look()
        for chunk in chunks:
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


def patiently(look: Callable[[], T], away: Away, *, deadline: float | None = None) -> T:
    """Return what `look` returns; a database that is away is waited for, no longer than to the deadline.

    Raises:
        DatabaseUnavailable: it has not come back.

    """
    until, told = min(time.monotonic() + PATIENCE, math.inf if deadline is None else deadline), False
    while True:
        try:
            return look()
        except errors.DatabaseUnavailable as error:
            if time.monotonic() >= until:
                raise
            if not told:
                away(error)
                told = True
            time.sleep(AWAY_INTERVAL)


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
