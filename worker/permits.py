"""How many jobs a worker may still take on, for `--max-jobs`: a tally in a file, shared by its slots.

What became of a job that was taken on is read from the database, so that no slot that is killed leaves a wrong count.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path

from orchestrator import failpoints
from orchestrator.core import jobs, states
from orchestrator.store import base


@dataclass(kw_only=True)
class Tally:
    """Jobs that have ended, and those whose training began here and that have not."""

    limit: int
    ended: int = 0
    mine: list[str] = field(default_factory=list)  #: ids


class Permits:
    """A tally under a file lock. Without a file there is no limit."""

    def __init__(self, path: Path | None, *, store: base.Store, worker: str) -> None:
        self.path = path
        self._store = store
        self._worker = worker

    @classmethod
    def create(cls, path: Path, limit: int, *, store: base.Store, worker: str) -> "Permits":
        """Write a fresh tally and return it."""
        failpoints.reach("permits.create")
        path.write_text(json.dumps(vars(Tally(limit=limit))), encoding="ascii")
        return cls(path, store=store, worker=worker)

    def take(self, claim: Callable[[], jobs.Claim | None]) -> jobs.Claim | None:
        """Return the job that `claim` claims for training; None where there is none, or the limit is reached."""
        if self.path is None:
            return claim()
        with self._open(self.path) as tally:
            claimed = claim() if tally.ended + len(tally.mine) < tally.limit else None
            if claimed is not None:
                tally.mine.append(claimed.id)
        return claimed

    def end(self) -> None:
        """Count a job that ended before its training; asks no database, which may be away by now."""
        if self.path is not None:
            with _tally(self.path) as tally:
                tally.ended += 1

    def spent(self) -> bool:
        """Whether no other job may be taken on, unless one that was goes elsewhere."""
        if self.path is None:
            return False
        with self._open(self.path) as tally:
            return tally.ended + len(tally.mine) >= tally.limit

    def used_up(self) -> bool:
        """Whether as many jobs have ended as may be taken on, and none is in work."""
        if self.path is None:
            return False
        with self._open(self.path) as tally:
            return tally.ended >= tally.limit and not tally.mine

    @contextmanager
    def _open(self, path: Path) -> Iterator[Tally]:
        with _tally(path) as tally:
            self._look_at_mine(tally)
            yield tally

    def _look_at_mine(self, tally: Tally) -> None:
        taken_on = self._store.jobs(jobs.JobFilter(ids=tuple(tally.mine))) if tally.mine else []
        tally.ended += len(tally.mine) - sum(not job.final for job in taken_on)  # who has deleted a job has ended it
        tally.mine = [job.id for job in taken_on if not job.final and self._is_mine(job)]
        # Of a slot that was killed between its claim and its note of that.
        begun = [job.id for job in self._store.running(states.Stage.TRAIN) if job.worker == self._worker]
        tally.mine += [job_id for job_id in begun if job_id not in tally.mine]

    def _is_mine(self, job: jobs.Job) -> bool:
        """Whether the job trains here or has done so: one that went back to the queue, or waits, is anybody's again."""
        if job.state is states.JobState.RUNNING and job.worker == self._worker:
            return True
        return job.stage is states.Stage.EVALUATE and job.state is not states.JobState.PAUSED


@contextmanager
def _tally(path: Path) -> Iterator[Tally]:
    """Read the tally under its lock, and write it in the end."""
    failpoints.reach("permits.open")
    with path.open("r+", encoding="ascii") as file:
        flock(file, LOCK_EX)
        text = file.read()
        tally = Tally(**json.loads(text))
        yield tally
        file.seek(0)
        failpoints.reach("permits.write")
        # One write and no truncation: whoever is killed at it leaves a whole tally.
        file.write(json.dumps(vars(tally)).ljust(len(text)))
