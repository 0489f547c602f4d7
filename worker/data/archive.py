"""Unpacking zip archives that `zipcheck` lets pass: into a new folder, whole and on disk, or not at all."""

import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator import errors, failpoints
from orchestrator.core import states
from worker.data import zipcheck

_CHUNK = 256 * 1024
_SYNC_THREADS = 8  # the kernel joins what waits for the disk at the same time


def extract(archive: Path, *, into: Path, limits: zipcheck.Limits, report: Callable[[int, int], None]) -> None:
    """Unpack into the new folder `into`, which is removed again when anything goes wrong.

    `report` gets (bytes written, bytes in all). At the return everything is on disk (fsync). Names that begin with a
    dot and __MACOSX are left out.

    Raises:
        StageFailed: bad_input, with a message for each thing that can be wrong; disk_full.

    """
    with zipcheck.opened(archive, limits) as file:
        members = zipcheck.checked(file, archive, limits)
        total = sum(member.file_size for member in members)
        _check_space(total, into.parent)
        failpoints.reach("archive.mkdir")
        into.mkdir(mode=0o700)
        try:
            _unpack(file, members, into, lambda written: report(written, total))
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            raise


def _check_space(total: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if total > free:
        raise errors.StageFailed(
            "There is no space to unpack the archive.",
            reason=states.Reason.DISK_FULL,
            why=f"It needs {total:,} bytes, {free:,} are free in {folder}.",
            hint="Free some space, or set ORCH_DATA_CACHE to a larger disk.",
        )


def _unpack(
    file: zipfile.ZipFile, members: list[zipfile.ZipInfo], staging: Path, report: Callable[[int], None]
) -> None:
    written = 0
    paths: list[Path] = []
    for member in members:
        target = staging / member.filename
        failpoints.reach("archive.folder")
        if member.is_dir():
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
            continue
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        written += _write(file, member, target)
        paths.append(target)
        report(written)
    # Written out only now, when the kernel has most of it under way: file by file it takes several times as long.
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(staging)}
    with ThreadPoolExecutor(max_workers=_SYNC_THREADS) as pool:
        for _ in pool.map(_sync, [*paths, *folders]):
            report(written)  # a sign of life: on a slow disk so many files may take longer than the stall time


def _sync(path: Path) -> None:
    failpoints.reach("archive.fsync")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> int:
    written = 0
    failpoints.reach("archive.create")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as out:
        try:
            with file.open(member) as packed:  # which ends at the declared size, whatever the packed bytes say
                while piece := packed.read(_CHUNK):
                    failpoints.reach("archive.write")
                    out.write(piece)
                    written += len(piece)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, struct.error) as error:
            raise zipcheck.member_refused(member.filename, "is damaged", f"{error}.") from error
    if written != member.file_size:
        raise zipcheck.member_refused(
            member.filename, "lies about its size", f"The directory says {member.file_size:,} bytes."
        )
    return written
