"""Which process a worker is, so that its own host can tell whether it still lives."""

import os
import secrets
import socket
from pathlib import Path

from orchestrator.core import jobs

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


def alive(worker: jobs.WorkerIdentity) -> bool:
    """Whether the worker may still live.

    One of another boot or pid namespace always may: two machines, or two containers, can have one host name. Its lease
    tells.
    """
    if (worker.boot_id, worker.pid_namespace) != (_boot_id(), _pid_namespace()):
        return True
    try:
        state, started = _state_and_start(worker.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return started == worker.pid_started and state not in _ENDED


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
