"""A job's log, copied from the file that the working process writes into pieces for the database."""

import codecs
from pathlib import Path

from orchestrator import failpoints
from orchestrator.core import jobs

CHUNK_BYTES = 64 * 1024
_CUT = "\n[orch: the log is longer than is kept in the database; the rest is in the attempt's directory]\n"


class LogTail:
    """Reads what is new in a log file, 64 KB at most a piece, up to a limit for the attempt."""

    def __init__(self, path: Path, *, attempt: int, max_bytes: int) -> None:
        self._path = path
        self._attempt = attempt
        self._max_bytes = max_bytes
        self._offset = 0
        self._sequence = 0
        # Keeps the beginning of a character that the end of a piece cuts.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read(self) -> jobs.LogChunk | None:
        """Return the next piece, None where there is nothing new."""
        if self._offset >= self._max_bytes:
            return None
        failpoints.reach("logtail.read")
        with self._path.open("rb") as log:
            log.seek(self._offset)
            new = log.read(min(CHUNK_BYTES, self._max_bytes - self._offset))
        if not new:
            return None
        self._offset += len(new)
        text = self._decoder.decode(new).replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL stores no NUL
        if self._offset >= self._max_bytes:
            text += _CUT
        chunk = jobs.LogChunk(attempt=self._attempt, sequence=self._sequence, text=text)
        self._sequence += 1
        return chunk
