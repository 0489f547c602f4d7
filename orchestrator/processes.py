"""What the kernel tells of other processes."""

from contextlib import suppress
from pathlib import Path


def opened(pid: int) -> set[Path]:
    """Return the files that a process has open; raises OSError where there is no such process, or it is another user's.

    One that is at work opens and closes others meanwhile: each is there or not.
    """
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(descriptor.readlink())
    return found
