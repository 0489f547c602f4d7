"""The checkpoint files of a job while one attempt holds it: they follow what the database keeps, as far as it knows."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from orchestrator import failpoints
from orchestrator.core import retention, specfields
from orchestrator.core.jobs import Checkpoint


class Shelf:
    """The files below `root`; `kept` are the checkpoints that the database lists at the attempt's beginning.

    `keep` says how many of the newest stay.
    """

    def __init__(self, root: Path, kept: Iterable[Checkpoint], *, keep: specfields.Keep) -> None:
        self._keep = keep
        self._root = root
        self._listed = {point.path: point for point in kept}  # by a row, or perhaps by one
        self._unheard: dict[str, Checkpoint] = {}  # of these the database has never been told

    def add(self, point: Checkpoint) -> None:
        """Take in a checkpoint that was written."""
        self._unheard[point.path] = point

    def has(self, point: Checkpoint) -> bool:
        """Whether its file is still there, before the database is told; from then on it stays until that lets it go."""
        if not (self._root / point.path).exists():
            return False
        self._unheard.pop(point.path, None)
        self._listed[point.path] = point
        return True

    def settle(self, kept: Iterable[Checkpoint]) -> None:
        """Delete what the database has let go; a lost answer takes nothing from what the next one says."""
        staying = {point.path: point for point in kept}
        self._delete(self._listed.keys() - staying)
        self._listed = staying

    def thin_out(self) -> None:
        """Delete what retention would, of what the database has never been told: it may be away for long."""
        line = retention.marked([*self._listed.values(), *self._unheard.values()])
        gone = {point.path for point in retention.superfluous(line, keep=self._keep)} & self._unheard.keys()
        self._delete(gone)
        for path in gone:
            del self._unheard[path]

    def _delete(self, paths: Iterable[str]) -> None:
        # No row names them any more: a file that stays behind is only space.
        for path in paths:
            with contextlib.suppress(OSError):
                failpoints.reach("retention.unlink")
                (self._root / path).unlink()
