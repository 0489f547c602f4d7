"""How many jobs a worker may still take on: a number in a file, shared by its slots, for `--max-jobs`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path


@dataclass(kw_only=True)
class Tally:
    """Jobs taken on and jobs ended, of those the worker may take."""

    limit: int
    taken: int = 0
    ended: int = 0


class Permits:
    """A tally under a file lock. Without a file there is no limit."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, limit: int) -> "Permits":
        """Write a fresh tally and return it."""
        path.write_text(json.dumps(vars(Tally(limit=limit))), encoding="ascii")
        return cls(path)

    def take(self) -> bool:
        """Take on one more job; False where the limit is reached."""
        if self.path is None:
            return True
        with self._open() as tally:
            free = tally.taken < tally.limit
            tally.taken += free
        return free

    def give_back(self) -> None:
        """Undo `take`: there was no job, or it went back to the queue."""
        if self.path is not None:
            with self._open() as tally:
                tally.taken -= 1

    def end(self) -> None:
        """Count a job that has ended."""
        if self.path is not None:
            with self._open() as tally:
                tally.ended += 1

    @property
    def used_up(self) -> bool:
        """Whether as many jobs have ended as may be taken on."""
        if self.path is None:
            return False
        with self._open() as tally:
            return tally.ended >= tally.limit

    @contextmanager
    def _open(self) -> Iterator[Tally]:
        if self.path is None:
            raise ValueError("there is no limit")
        with self.path.open("r+", encoding="ascii") as file:
            flock(file, LOCK_EX)
            tally = Tally(**json.load(file))
            yield tally
            file.seek(0)
            file.truncate()
            file.write(json.dumps(vars(tally)))
            file.flush()
            os.fsync(file.fileno())
