"""The processor of this host, by the name that its kernel gives it."""

import platform
from contextlib import suppress
from pathlib import Path

_CPUS = Path("/proc/cpuinfo")


def _told(*names: str) -> str | None:
    """Return what the kernel says of the first processor by one of these names; None where it says nothing."""
    with suppress(OSError):
        for line in _CPUS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() in names:
                return value.strip()
    return None


# Looked up at the import, which a fork server does once: ten milliseconds that no job waits for.

#: The model; the architecture where the kernel does not name one.
MODEL = _told("model name") or platform.machine()

#: What of the architecture it has, which code that is compiled for it rests on.
FEATURES = _told("flags", "Features") or ""
