"""The warm process: it has torch imported, and forks one child for each request.

`multiprocessing.forkserver` was not enough: it cannot be shared by several processes, and torch would be imported in
each of them. Requests come over a unix socket: one JSON line with the descriptors of the pipe, the log, and the locks.
The answer is a JSON line with the child's pid, and another with its wait status when it has ended.

Threads do not survive a fork: nothing in here runs a tensor operation or asks CUDA anything.
"""

import argparse
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import environ, failpoints
from worker import protocol

#: Imported before the first request: all that a stage needs.
PRELOAD = tuple(sorted({entry.partition(":")[0] for entry in protocol.ENTRY_POINTS.values()}))

_MAX_REQUEST = 4 * 2**20
#: The most that the kernel hands over at once (SCM_MAX_FD): two of a job, and two locks for each device of a gang.
_MAX_DESCRIPTORS = 253
_PAUSE_SECONDS = 0.1


class Request(BaseModel):
    """What to run. Its descriptors follow it: the pipe, the log file, then locks that the child only holds."""

    entry: str  #: module:function, called with the assignment and the connection
    assignment: protocol.Assignment


def main() -> int:
    """Import, listen, fork; end when standard input does, or at SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m worker.forkserver")
    parser.add_argument("--socket", type=Path, required=True)
    path: Path = parser.parse_args().socket
    gc.disable()  # a seventh of the time of these imports
    try:
        for name in PRELOAD:
            importlib.import_module(name)
    except Exception:  # noqa: BLE001 - a broken installation of torch raises anything
        traceback.print_exc()
        return protocol.EXIT_UNUSABLE
    gc.collect()
    gc.freeze()  # or the collector would write to every page that the children share
    gc.enable()
    failpoints.reach("forkserver.bind")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `orch down` removes a short one when it is empty
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        Server(listener).serve()
    path.unlink(missing_ok=True)
    return 0


class Server:
    """Waits for requests, for children that end, and for the node to go."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._askers: dict[int, socket.socket] = {}  # by the pid of the child that each waits for
        self._selector = selectors.DefaultSelector()
        self._wake, wakeup = socket.socketpair()
        self._wake.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup = wakeup
        self._stopping = False

    def serve(self) -> None:
        """Serve until the node goes."""
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        for readable in (self._listener, self._wake, sys.stdin):
            self._selector.register(readable, selectors.EVENT_READ)
        while not self._stopping:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._wake in ready:
                self._wake.recv(4096)
                self._reap()
            if sys.stdin in ready:
                return
            if self._listener in ready:
                self._answer()

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _answer(self) -> None:
        try:
            failpoints.reach("forkserver.accept")
            asker, _ = self._listener.accept()
        except OSError as error:  # no descriptor is free: the request waits
            sys.stderr.write(f"fork server: a request was not taken: {error}\n")
            time.sleep(_PAUSE_SECONDS)
            return
        descriptors: list[int] = []
        try:
            request = _read(asker, descriptors)
            failpoints.reach("forkserver.fork")
            pid = os.fork()
        except (OSError, ValueError) as error:
            with suppress(OSError):
                sys.stderr.write(f"fork server: a request was dropped: {error}\n")
            asker.close()
        else:
            if pid == 0:
                # It keeps its own asker open, whose end tells of its own end should this server be dead by then.
                self._become(request, descriptors)
            with suppress(OSError):  # it has ended already
                os.setpgid(pid, pid)  # here as well as there: it may be stopped before it has run at all
            self._askers[pid] = asker
            _tell(asker, {"pid": pid})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _become(self, request: Request, descriptors: list[int]) -> None:
        """Turn the forked copy into the working process; never returns."""
        status = protocol.EXIT_FAILED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setpgid(0, 0)
            for mine in (self._listener, self._wake, self._wakeup, *self._askers.values()):
                mine.close()
            self._selector.close()
            status = _work(request, *descriptors[:2])
        except BaseException:  # noqa: BLE001 - the forked copy must end here, whatever happens
            with suppress(OSError):
                traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # the log may be on a disk that is full
                    stream.flush()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            asker = self._askers.pop(pid)
            _tell(asker, {"status": status})
            asker.close()


def _work(request: Request, pipe: int, log: int) -> int:
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    environ.set_visible_gpus(request.assignment.gpus)
    module, _, name = request.entry.partition(":")
    function = getattr(importlib.import_module(module), name)
    # Never closed: the supervisor takes the end of file on the pipe for the end of the process.
    return int(function(request.assignment, Connection(pipe)))


def _read(asker: socket.socket, descriptors: list[int]) -> Request:
    failpoints.reach("forkserver.receive")
    asker.settimeout(5)
    text, sent, _, _ = socket.recv_fds(asker, _MAX_REQUEST, _MAX_DESCRIPTORS)
    descriptors += sent
    while not text.endswith(b"\n"):
        more = asker.recv(_MAX_REQUEST)
        if not more:
            raise ValueError("it broke off")
        text += more
    return Request.model_validate_json(text)


def _tell(asker: socket.socket, what: dict[str, int]) -> None:
    try:
        failpoints.reach("forkserver.tell")
        asker.sendall(json.dumps(what).encode() + b"\n")
    except OSError:
        # Whoever asked is dead, and the child sees that on its own pipe; one who lives sees it here, and asks again.
        asker.close()


if __name__ == "__main__":
    sys.exit(main())
