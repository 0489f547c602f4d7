"""Which process a worker is, so that its own host can tell whether it still lives."""

import hashlib
import importlib.metadata
import os
import platform
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import IO

from orchestrator import failpoints
from orchestrator.core import jobs, specs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")

#: States of a process that has ended: zombie, dead.
_ENDED = frozenset({"Z", "X"})


def mine(name: str | None) -> jobs.WorkerIdentity:
    """Return this process's identity, under a name that is new each time."""
    host = socket.gethostname()
    _, started = _state_and_start(os.getpid())
    return jobs.WorkerIdentity(
        id=f"{name or host}-{secrets.token_hex(3)}",
        host=host,
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        pid_started=started,
    )


@contextmanager
def held(living: Path, worker_id: str) -> Iterator[str]:
    """Hold the lock that says that this worker lives, in a folder of its home: the kernel lets go of it in any case.

    Yields its name, which is a key for the worker's other files.
    """
    failpoints.reach("living.hold")
    living.mkdir(mode=0o700, exist_ok=True)
    path = _lock(living, worker_id)
    with _made(path):
        try:
            yield path.name
        finally:
            path.unlink(missing_ok=True)


def forget_the_dead(living: Path) -> list[str]:
    """Remove the lock files that nobody holds, and return their names; their workers have been found dead."""
    failpoints.reach("living.forget")
    dead = []
    for path in filter(_is_free, list(living.iterdir())):
        # Removed while held: who has just made it waits, and finds it gone. Network file systems want to write for it.
        with suppress(FileNotFoundError, BlockingIOError), path.open("r+b") as lock:
            flock(lock, LOCK_EX | LOCK_NB)
            path.unlink()
            dead.append(path.name)
    return dead


def alive(worker: jobs.WorkerIdentity, *, living: Path) -> bool:
    """Whether the worker may still live; `living` is the folder of this home's locks.

    One of this boot and pid namespace is told by its pid. Any other may be on another machine, or in another container,
    of the same name: it is dead only where it left its lock in this very home, as before a restart of the host or of
    the container. Else its lease tells.
    """
    if (worker.boot_id, worker.pid_namespace) != (_boot_id(), _pid_namespace()):
        return not _is_free(_lock(living, worker.id))
    try:
        state, started = _state_and_start(worker.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return started == worker.pid_started and state not in _ENDED


def _lock(living: Path, worker_id: str) -> Path:
    return living / hashlib.sha256(worker_id.encode()).hexdigest()[:16]  # a name may hold any character


def _made(path: Path) -> IO[str]:
    """Make the file and lock it: anew where another node has removed it before it was locked, as a dead one's."""
    while True:
        lock = path.open("w")
        flock(lock, LOCK_EX)  # who looks at it holds it for a moment
        if path.exists():
            return lock
        lock.close()


def _is_free(path: Path) -> bool:
    """Whether the lock is there and nobody holds it."""
    failpoints.reach("living.look")
    try:
        with path.open("rb") as lock:
            flock(lock, LOCK_SH | LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def _state_and_start(pid: int) -> tuple[str, float]:
    """Return a process's state and its start in clock ticks since the boot: no setting of the clock moves these.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    behind_the_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return behind_the_name[0], float(behind_the_name[19])


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _pid_namespace() -> str:
    return str(_PID_NAMESPACE.readlink())


def versions() -> dict[str, str]:
    """Return which versions this process runs, by the names of the packages."""
    found = {"python": platform.python_version(), "spec": str(specs.SPEC_VERSION)}
    for name in ("orch", "torch", "torchvision", "celery"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
