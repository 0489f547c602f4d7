"""Which process a worker is, so that its own host can tell whether it still lives."""

import os
import secrets
import socket
from pathlib import Path

import psutil

from orchestrator.core import jobs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


def mine(name: str | None) -> jobs.WorkerIdentity:
    """Return this process's identity, under a name that is new each time."""
    host = socket.gethostname()
    return jobs.WorkerIdentity(
        id=f"{name or host}-{secrets.token_hex(3)}",
        host=host,
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        pid_started=psutil.Process().create_time(),
    )


def alive(worker: jobs.WorkerIdentity) -> bool:
    """Whether the worker may still live; one of another host or pid namespace always may.

    The caller asks about its own host only: an older boot is dead, whatever has its pid now.
    """
    if worker.boot_id != _boot_id():
        return False
    if worker.pid_namespace != _pid_namespace():
        return True
    try:
        process = psutil.Process(worker.pid)
        return process.create_time() == worker.pid_started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _pid_namespace() -> str:
    return str(_PID_NAMESPACE.readlink())
