"""Whether the kernel has killed for want of memory: by the counter of a process's own control group, else the host's.

The group's counter rises only for its own processes (https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.events;
memory.oom_control in version 1). The host's, in /proc/vmstat, may rise for anybody's: it makes a guess, not a finding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import failpoints

HOST = Path("/proc/vmstat")

_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A counter of kills, as it stood when it was made."""

    file: Path
    before: int

    @property
    def certain(self) -> bool:
        """Whether it counts the process's own group alone."""
        return self.file != HOST

    @property
    def risen(self) -> bool:
        """Whether the kernel has killed since."""
        return (_kills(self.file) or 0) > self.before


def counter(pid: int) -> Counter:
    """Return the counter for a process that runs."""
    for file in (*_files(pid), HOST):
        kills = _kills(file)
        if kills is not None:
            return Counter(file=file, before=kills)
    return Counter(file=HOST, before=0)


def _files(pid: int) -> Iterator[Path]:
    """Yield where the counter of the process's group may be; in a container, the group is often the mount's root."""
    try:
        failpoints.reach("oom.group")
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            mount, name = _GROUPS / "memory", "memory.oom_control"
        elif not controllers:
            mount, name = _GROUPS, "memory.events"
        else:
            continue
        yield mount / path.lstrip("/") / name
        yield mount / name


def _kills(file: Path) -> int | None:
    try:
        failpoints.reach("oom.read")
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
