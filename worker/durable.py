"""Files that outlive a power failure: a name appears only behind bytes that are on the disk."""

import contextlib
import os
from pathlib import Path
from typing import TypeAlias

from orchestrator import disk, failpoints

Bytes: TypeAlias = bytes | memoryview


def write(*pieces: Bytes, path: Path, place: str) -> None:
    """Write a file of pieces durably, whole or not at all; its folder exists. `place` begins its failpoints' names.

    One process at a time writes it: who comes after one that was killed writes over what that one left.

    Raises:
        OSError: nothing is left behind.

    """
    written = temporary = path.with_name(f".{path.name}.tmp")
    try:
        failpoints.reach(f"{place}.open")
        with temporary.open("wb") as file:
            failpoints.reach(f"{place}.write")
            file.writelines(pieces)
            file.flush()
            failpoints.reach(f"{place}.fsync")
            os.fsync(file.fileno())
        failpoints.reach(f"{place}.rename")
        written = temporary.replace(path)
        failpoints.reach(f"{place}.folder")
        disk.sync_folder(path.parent)
    except BaseException:
        # After a failed fsync nobody knows what is on the disk; a second one would say "fine" (fsyncgate).
        with contextlib.suppress(OSError):
            written.unlink()
        raise
