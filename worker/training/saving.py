"""The thread that writes checkpoints while the training goes on: one at a time, in order."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Writing:
    """What is being written of a training; as a context it lasts until that is done.

    Whatever a writing fails with is raised in the training's thread at its next look, its next save or the end,
    before any other error: it is the earlier one.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def begin(self, write: Callable[[], None]) -> None:
        """Start to write, once what is being written is written."""
        self.wait()
        self._under_way = self._thread.submit(write)

    def look(self) -> None:
        """Raise what has failed; does not wait."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._under_way is not None:
            ended, self._under_way = self._under_way, None
            ended.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
