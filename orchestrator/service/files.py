"""A folder, and the disk that it lies on."""

import contextlib
import os
from pathlib import Path

from orchestrator import errors

#: File systems whose locks and shared memory SQLite's write-ahead log cannot rely on.
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "fuse.sshfs"})

#: File systems that are gone when their host is started again.
MEMORY = frozenset({"tmpfs", "ramfs"})


def existing(path: Path) -> Path:
    """Return the nearest folder on the way up from `path` that is seen to exist."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if _exists(folder))


def _exists(folder: Path) -> bool:
    with contextlib.suppress(PermissionError):  # behind one that may not be looked into nothing is seen
        return folder.exists()
    return False


def kind(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the type of the file system that holds `path`, None where the kernel does not say."""
    target = existing(path).resolve()
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found: tuple[int, str] | None = None
    for line in lines:
        _, folder, name, *_ = line.split(" ")
        point = Path(folder.replace("\\040", " "))
        if target.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), name)
    return found[1] if found else None


def free(path: Path) -> int:
    """Return the bytes that we may still write at `path`."""
    figures = os.statvfs(existing(path))
    return figures.f_bavail * figures.f_frsize


def refuse_network(home: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Raise InvalidSetting where `home` lies on a network file system."""
    name = kind(home, mounts)
    if name in NETWORK:
        raise errors.InvalidSetting(
            f"The home folder {home} lies on a network file system ({name}).",
            why="SQLite's write-ahead log needs a local disk: the database would be damaged.",
            hint="Set ORCH_HOME to a local folder, or ORCH_DATABASE_URL to a PostgreSQL server.",
        )
