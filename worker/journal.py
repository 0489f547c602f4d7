"""The journal: what a working process says while the database is away, kept in its attempt's directory.

One JSON line a record, appended; whatever a person would miss is fsynced before the next word is heard. Step values
are not: a crash of the host may cost the last of them. Past `MOST_BYTES` step values are left out and counted, all
else is still kept: a few kilobytes an epoch. Progress is never journaled, since the newest word of it says all.

The rule: a journal counts as long as its attempt is the current one, and the fence decides that. Its supervisor
replays it when the database is back. If that one has died, a node on the same artifact root does
(`recorder.recover`): whoever gets the lock of the file is the only one. A journal whose attempt is over is deleted
unread, and the job goes on from the newest checkpoint in the database. A journal is replayed from its first record on;
every write takes effect once.
"""

import errno
import fcntl
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator import failpoints
from orchestrator.core import jobs
from worker import protocol

FILE = "journal.jsonl"

#: Size from which on step values are left out: some five hours of a hundred steps a second.
MOST_BYTES = 64 * 2**20


class Record(BaseModel):
    """Something said, and when it was heard; an outcome is the last."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    said: protocol.Up | jobs.Outcome

    @property
    def is_steps(self) -> bool:
        """Whether it holds step values only."""
        return isinstance(self.said, protocol.Steps)


class Journal:
    """The journal of one attempt; there is a file only while something waits in it."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.left_out = 0  #: step records beyond the limit
        self._path = path
        self._most_bytes = most_bytes
        self._file: IO[bytes] | None = None
        self._read_to = 0
        self._line = b""

    @classmethod
    def left_behind(cls, path: Path) -> "Journal | None":
        """Return the journal that a dead supervisor left at `path`; None where there is none, or its writer lives."""
        journal = cls(path)
        try:
            journal._file = _locked(path, "r+b")
            if path.stat().st_ino != os.fstat(journal._file.fileno()).st_ino:  # its writer was done with it just now
                journal.close()
                return None
        except OSError:
            journal.close()
            return None
        return journal

    def append(self, record: Record) -> None:
        """Add a record; raises OSError where the disk does not take it, and then nothing of it stays."""
        if self._file is None:
            self._file = _made(self._path)
        file = self._file.fileno()
        size = os.fstat(file).st_size
        if record.is_steps and size > self._most_bytes:
            self.left_out += 1
            return
        line = record.model_dump_json().encode() + b"\n"
        try:
            _add(file, line, size)
            if not record.is_steps:
                failpoints.reach("journal.fsync")
                os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise

    def oldest(self) -> Record | None:
        """Return the record that is to be written next; None where nothing waits.

        A damaged line ends the journal: what was said after it may rest on it.
        """
        if self._file is None:
            return None
        self._file.seek(self._read_to)
        self._line = self._file.readline()
        try:
            return Record.model_validate_json(self._line)
        except ValidationError:  # the end of the file is one, too
            return None

    def forget_oldest(self) -> None:
        """Go on to the record behind the one that `oldest` returned."""
        self._read_to += len(self._line)

    def forget_left_out(self) -> None:
        """Count step records beyond the limit anew: it has been said how many there were."""
        self.left_out = 0

    def close(self) -> None:
        """Let go of the file; what it holds is for a successor."""
        if self._file is not None:
            self._file.close()
        self._file, self._read_to, self.left_out = None, 0, 0

    def discard(self) -> None:
        """Delete it: all of it is in the database, or none of it counts."""
        if self._file is not None:
            remove(self._path)
        self.close()


def remove(path: Path) -> None:
    """Delete a journal; one that stays behind is replayed to no effect, or deleted by the next attempt."""
    with suppress(OSError):
        failpoints.reach("journal.unlink")
        path.unlink()


def _add(file: int, line: bytes, size: int) -> None:
    """Write a line at the file's end, past Python's buffer: that would write again what the disk has refused."""
    failpoints.reach("journal.write")
    if os.pwrite(file, line, size) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _made(path: Path) -> IO[bytes]:
    """Make the file and hold its lock from the first: whoever found it without would take its writer for dead."""
    draft = path.with_suffix(".draft")
    file = _locked(draft, "w+b")
    try:
        failpoints.reach("journal.rename")
        draft.rename(path)
    except OSError:
        file.close()
        raise
    return file


def _locked(path: Path, mode: str) -> IO[bytes]:
    """Open a file and hold its lock; raises OSError where another process does."""
    failpoints.reach("journal.open")
    file: IO[bytes] = path.open(mode)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
