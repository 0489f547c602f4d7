"""The frame around every stage's work: the pipe to the supervisor, the wish to stop, and what an exception becomes."""

import errno
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from pydantic import BaseModel

from orchestrator import errors
from orchestrator.core import states
from worker import diary, protocol

#: Seconds after a stop in which what only waits may end by itself; a silent server would hold it much longer.
_STOP_GRACE = 1.0
_LOOK_EVERY = 0.1
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
#: What allocators say: CUDA's and MPS's first, then torch's on the CPU, then cuBLAS's and cuDNN's own. Where no way of
#: a convolution has the memory that it works in, cuDNN says that there is none.
_NO_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed", "unable to find an engine to execute"),
)
_GPU_ERRORS = ("cuda error", "cudnn error")
_MEANINGS = {
    states.Reason.OOM: "Memory ran out.",
    states.Reason.GPU_ERROR: "The GPU failed.",
    states.Reason.DISK_FULL: "The disk is full.",
}
HINTS = {
    states.Reason.OOM: "Try a smaller --batch-size or --image-size.",
    states.Reason.GPU_ERROR: "`orch doctor` checks driver and devices.",
    states.Reason.DISK_FULL: "Free some space on it, then `orch retry` the job.",
}
_EXIT_CODES = {"done": protocol.EXIT_DONE, "stopped": protocol.EXIT_STOPPED}


class Link:
    """The working end of the pipe. `send` may be called from any thread.

    `stop_requested` is set by `Stop` and by SIGTERM. The main thread asks `is_set()` and never waits on it: a signal
    handler that sets an event whose lock the interrupted thread holds would hang.
    """

    def __init__(self, connection: Connection) -> None:
        self.stop_requested = threading.Event()
        self._connection = connection
        self._sending = threading.Lock()
        self._ended = False
        threading.Thread(target=self._watch, name="pipe", daemon=True).start()

    def send(self, message: BaseModel) -> None:
        """Send one message; nothing goes out behind the last one. Raises OSError when the supervisor has gone."""
        with self._sending:
            if self._ended:
                return
            protocol.send(self._connection, message)
        diary.write(message)  # behind the lock: a log on a disk that hangs holds up no other message

    def end(self, message: protocol.Ended | protocol.Failed) -> bool:
        """Send the last message; False where it has been sent before."""
        with self._sending:
            first, self._ended = not self._ended, True
            if first:
                protocol.send(self._connection, message)
        if first:
            diary.write(message)
        return first

    def _watch(self) -> None:
        try:
            while True:
                protocol.receive_down(self._connection)
                self.stop_requested.set()
        except (EOFError, OSError):
            # The supervisor is dead: nobody would record the work, and its successor may have begun.
            if not self._ended:
                os._exit(protocol.EXIT_FENCED)


def run(connection: Connection, body: Callable[[Link], protocol.Ended]) -> int:
    """Run a stage's work and return the exit code of its process; every exception ends as a `Failed` message."""
    link = Link(connection)
    with _sigterm_sets(link.stop_requested):
        last: protocol.Ended | protocol.Failed
        try:
            last = body(link)
        except Exception as error:  # noqa: BLE001 - the one place where a stage's exceptions end
            last = failure(error)
        try:
            link.end(last)
        except OSError:
            return protocol.EXIT_FENCED
    return _EXIT_CODES[last.how] if isinstance(last, protocol.Ended) else protocol.EXIT_FAILED


@contextmanager
def leaving(link: Link) -> Iterator[None]:
    """Let a stop end the process where it does not end by itself: for work that waits, and keeps what has come."""
    over = threading.Event()

    def leave() -> None:
        while not link.stop_requested.is_set():
            if over.wait(_LOOK_EVERY):
                return
        if not over.wait(_STOP_GRACE) and link.end(protocol.Ended(how="stopped")):
            os._exit(protocol.EXIT_STOPPED)

    watcher = threading.Thread(target=leave, name="stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()  # nothing begins behind an end that was told


def failure(error: Exception, *, folder: Path | None = None) -> protocol.Failed:
    """Return the message that tells of `error`; what nobody foresaw also goes to stderr, the job's log.

    `folder` is where the work was going on: a write to a full disk does not say by itself which one that is.
    """
    if isinstance(error, errors.StageFailed):
        return protocol.Failed(reason=states.Reason(error.reason), error=_sentences(error), hint=error.hint)
    with suppress(OSError):  # the log may be on the disk that is full
        traceback.print_exception(error)
    if isinstance(error, errors.OrchError):
        reason = states.Reason.USER_ERROR if isinstance(error, errors.UsageError) else states.Reason.INTERNAL
        return protocol.Failed(reason=reason, error=_sentences(error), hint=error.hint)
    said, reason = f"{type(error).__name__}: {error}".splitlines()[0], _reason(error)
    if reason is states.Reason.DISK_FULL and folder is not None and getattr(error, "filename", None) is None:
        said = f"{said}, below {folder}"
    meaning = f"{_MEANINGS[reason]} " if reason in _MEANINGS else ""
    return protocol.Failed(reason=reason, error=meaning + said, hint=HINTS.get(reason))


def _reason(error: Exception) -> states.Reason:
    # torch's errors are told by their names: this module is imported where torch must not be.
    names = {ancestor.__name__ for ancestor in type(error).__mro__}
    said = str(error).lower()
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return states.Reason.DISK_FULL
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM  # of a fork, or of memory that is shared
    if isinstance(error, MemoryError) or no_memory or "OutOfMemoryError" in names:
        return states.Reason.OOM
    if isinstance(error, RuntimeError) and any(words in said for words in _NO_MEMORY):
        return states.Reason.OOM
    if "AcceleratorError" in names or any(words in said for words in _GPU_ERRORS):
        return states.Reason.GPU_ERROR
    return states.Reason.INTERNAL


def _sentences(error: errors.OrchError) -> str:
    return f"{error.message} {error.why}" if error.why else error.message


@contextmanager
def _sigterm_sets(event: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(_signal: int, _frame: FrameType | None) -> None:
        event.set()

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
