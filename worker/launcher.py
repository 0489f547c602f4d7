"""Starting a stage's process through the fork server, and holding on to it."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Self

import tenacity

from orchestrator import errors, failpoints
from orchestrator.core import layout
from worker import protocol

#: The fork server needs some seconds for its imports; a node that has lost it starts another.
_START_SECONDS = 120
#: It forks in milliseconds: one that is silent for so long hangs.
_ANSWER_SECONDS = 20


class Process:
    """A stage's process: its pipe, its end, its whole process group."""

    def __init__(self, connection: Connection, pid: int, asked: socket.socket) -> None:
        self.connection = connection
        self.hearing = protocol.Hearing(connection)
        self.pid = pid
        self.status: int | None = None  #: wait status, once it has ended
        self.ended = False
        self.ending = asked  #: becomes readable when the process has ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.connection.close()
        self.ending.close()

    def collect(self) -> None:
        """Wait for the end and take in the wait status; a fork server that is dead or hangs leaves it None."""
        if self.ended:
            return
        self.ending.settimeout(_ANSWER_SECONDS)
        line = b""
        with suppress(TimeoutError), self.ending.makefile("rb") as answers:
            line = answers.readline()
        self.ended = True
        self.status = json.loads(line)["status"] if line else None

    def ask_to_stop(self) -> None:
        """Ask for a checkpoint and the end."""
        try:
            protocol.send(self.connection, protocol.Stop())
        except OSError:
            return  # it is ending already

    def kill(self) -> None:
        """Kill every process of its group: the loader's workers die with it."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it, None where it ended by itself or where that is not known."""
        if self.status is None or not os.WIFSIGNALED(self.status):
            return None
        return os.WTERMSIG(self.status)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None where a signal ended it or where that is not known."""
        if self.status is None or not os.WIFEXITED(self.status):
            return None
        return os.WEXITSTATUS(self.status)


class Unwanted(Exception):
    """Nobody wants the process any more: it was not started."""


class Launcher:
    """Asks the fork server of the node for processes."""

    def __init__(self, server: Path) -> None:
        self._server = server

    def start(
        self,
        entry: str,
        assignment: protocol.Assignment,
        *,
        log: Path,
        locks: Sequence[int] = (),
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Process:
        """Start `entry` on the assignment; its standard output and error go to `log` from the first moment.

        It holds the `locks`, open descriptors, as long as any process of it lives.

        Raises:
            Unwanted: `unwanted` became true while the fork server did not answer.
            OrchError: the fork server did not answer within two minutes.

        """
        request = {"entry": entry, "assignment": assignment.model_dump(mode="json")}
        waiting = tenacity.Retrying(
            wait=tenacity.wait_fixed(0.05),
            stop=lambda tried: unwanted() or (tried.seconds_since_start or 0) > _START_SECONDS,
            retry=tenacity.retry_if_exception_type(OSError),
        )
        failpoints.reach("launcher.log")
        with log.open("ab") as output, ExitStack() as undo:
            try:
                process = waiting(self._ask, json.dumps(request).encode() + b"\n", [output.fileno(), *locks])
            except tenacity.RetryError as error:
                if unwanted():
                    raise Unwanted from error
                raise errors.OrchError("The fork server does not answer.", hint="The worker's log says why.") from error
            undo.enter_context(process)
            failpoints.reach("pid.write")
            (log.parent / layout.PID).write_text(str(process.pid), encoding="ascii")
            undo.pop_all()
        return process

    def _ask(self, request: bytes, descriptors: Sequence[int]) -> Process:
        """Ask once, with a pipe of its own: a child of a try that failed finds nobody on its pipe, and ends."""
        mine, theirs = Pipe()
        with ExitStack() as undo, theirs:
            undo.enter_context(mine)
            asked = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            asked.settimeout(_ANSWER_SECONDS)
            failpoints.reach("launcher.connect")
            asked.connect(str(self._server))
            failpoints.reach("launcher.send")
            sent = socket.send_fds(asked, [request], [theirs.fileno(), *descriptors])
            asked.sendall(request[sent:])
            with asked.makefile("rb", buffering=0) as answers:  # unbuffered: the next line is the process's end
                line = answers.readline()
            if not line:
                raise ConnectionResetError("the fork server hung up")
            undo.pop_all()
        return Process(mine, int(json.loads(line)["pid"]), asked)


def kill_leftover(attempt_dir: Path) -> None:
    """Kill the process group that a dead supervisor left in its attempt's directory, and remove its pid file.

    The group's leader must be a process of that attempt: a pid that was given to another process is left alone.
    """
    pid_file = attempt_dir / layout.PID
    with suppress(OSError, ValueError):
        failpoints.reach("leftover.read")
        _kill(int(pid_file.read_text(encoding="ascii")), attempt_dir)
    with suppress(OSError):
        failpoints.reach("leftover.unlink")
        pid_file.unlink()


def _kill(pid: int, attempt_dir: Path) -> None:
    opened = {Path(f"/proc/{pid}/fd/{number}").readlink() for number in (1, 2)}
    if any(path.parent == attempt_dir.resolve() for path in opened):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}/fd/1").is_symlink() and time.monotonic() < deadline:
            time.sleep(0.01)
