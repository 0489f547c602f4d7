"""The processes of a node: each is started, watched, and started again when it dies."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from orchestrator import failpoints, log

_log = log.get("node")

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
#: A process that lived this long has earned a fresh start.
_PROVEN_SECONDS = 60.0

#: glibc gives big buffers back to the kernel at every step, and the page faults cost up to half of the time.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
FORK_SERVER_ENVIRONMENT = {
    **ALLOCATOR,
    # OpenBLAS would start threads at import, and threads do not survive a fork.
    "OPENBLAS_NUM_THREADS": "1",
    # How often a thread looks for the others before it sleeps, a few times as long as it takes to be woken. Without an
    # end a small network's steps take four times as long beside another busy process; without any, twice as long alone.
    "GOMP_SPINCOUNT": "10000",
    # What a stage prints is in the log of its job at once, in its place among the lines of the diary.
    "PYTHONUNBUFFERED": "1",
}


class Child:
    """A Python module of ours as a process. Its standard input stays open: its end tells the child that we are gone."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        environment: dict[str, str],
        arguments: Sequence[str] = (),
        first_line: str = "",
        descriptors: Sequence[int] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = environment
        self._first_line = first_line
        self._descriptors = tuple(descriptors)
        self._monotonic = monotonic
        self.last_code: int | None = None  #: how it ended the last time
        self._process: subprocess.Popen[str] | None = None
        self._delay = _FIRST_DELAY
        self._started_at = 0.0
        self._due_at = 0.0

    @property
    def pid(self) -> int | None:
        """Its pid, None where it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it, in a session of its own: a Ctrl-C at the terminal is for the node alone."""
        self._started_at = self._monotonic()
        failpoints.reach("child.start")
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            pass_fds=self._descriptors,
            start_new_session=True,
            text=True,
        )
        if self._process.stdin is not None and self._first_line:
            with suppress(BrokenPipeError):  # it died already: `keep` starts another
                self._process.stdin.write(self._first_line + "\n")
                self._process.stdin.flush()

    def keep(self) -> None:
        """Start it again if it has died, after a pause that grows while it keeps dying."""
        now = self._monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                return
            lived = now - self._started_at
            self.last_code = self._process.returncode
            _log.warning("child died", child=self.name, code=self._process.returncode, lived=round(lived, 1))
            self._forget()
            self._delay = _FIRST_DELAY if lived > _PROVEN_SECONDS else min(self._delay * 2, _LONGEST_DELAY)
            self._due_at = now + self._delay
        if now < self._due_at:
            return
        try:
            self.start()
        except OSError as error:  # the host has no memory or no pid left for it: later, perhaps
            _log.warning("child does not start", child=self.name, why=str(error))
            self._delay = min(self._delay * 2, _LONGEST_DELAY)
            self._due_at = now + self._delay

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, deadline: float) -> bool:
        """Wait for its end until `deadline` on the monotonic clock, then kill it; return whether it went by itself."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout=max(0.0, deadline - self._monotonic()))
            went = True
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            went = False
        self._forget()
        return went

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None
