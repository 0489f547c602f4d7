"""The processor of this host, by the name that its kernel gives it."""

import platform
from contextlib import suppress
from pathlib import Path

_CPUS = Path("/proc/cpuinfo")


def _model() -> str:
    """Return the processor's model; its architecture where the kernel does not name one."""
    with suppress(OSError):
        for line in _CPUS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() == "model name":
                return value.strip()
    return platform.machine()


#: Looked up at the import, which a fork server does once: ten milliseconds that no job waits for.
MODEL = _model()
