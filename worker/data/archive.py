"""Zip archives from anywhere: the whole directory is checked before the first byte is written.

What is checked is what the standard library does not (CPython 3.11 renames `../x` into the target, writes a link as a
file and reads overlapping entries without end): names, kinds of file, sizes, ratios and the layout of the archive.
"""

import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator import errors, failpoints
from orchestrator.core import states

_CHUNK = 256 * 1024
_SYNC_THREADS = 8  # the kernel joins what waits for the disk at the same time
_LOCAL_HEADER = 30  # bytes before its name and its extra field
_DIRECTORY_ENTRY = 46  # likewise
_END_RECORD = 22 + 65_535  # the end record with its longest comment
_END_SIGNATURE = b"PK\5\6"
_LONGEST_NAME = 255  # bytes of one part, as file systems have it
_LONGEST_PATH = 1024  # bytes; the kernel takes 4096, the cache's own folders included
_TYPICAL_NAME = 128  # bytes of a path and its extra fields, generously
_IN_ZIP64 = 0xFFFF_FFFF


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an archive may hold."""

    max_bytes: int  #: unpacked
    max_members: int = 500_000
    max_depth: int = 16  #: folders
    max_ratio: int = 200  #: of a member's size to its packed size; deflate's own end is 1032
    ratio_matters_from: int = 2**20  #: bytes; a small member may be as empty as it likes


def extract(archive: Path, *, into: Path, limits: Limits, report: Callable[[int, int], None]) -> None:
    """Unpack into the new folder `into`, which is removed again when anything goes wrong.

    `report` gets (bytes written, bytes in all). At the return everything is on disk (fsync). Names that begin with a
    dot and __MACOSX are left out.

    Raises:
        StageFailed: bad_input, with a message for each thing that can be wrong; disk_full.

    """
    with _opened(archive, limits) as file:
        members = _checked(file, archive, limits)
        total = sum(member.file_size for member in members)
        _check_space(total, into.parent)
        failpoints.reach("archive.mkdir")
        into.mkdir(mode=0o700)
        try:
            _unpack(file, members, into, lambda written: report(written, total))
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            raise


@contextmanager
def _opened(archive: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    failpoints.reach("archive.open")
    with archive.open("rb") as raw:
        _check_kind(raw)
        _check_member_count(raw, limits)
        try:
            file = zipfile.ZipFile(raw)
        except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError, OverflowError) as error:
            raise _refused("The archive's directory is damaged.", why=f"{error}.") from error
        with file:
            yield file


def _check_kind(raw: IO[bytes]) -> None:
    head = raw.read(1024)
    if not head:
        raise _refused("The archive is empty.", why="It has no bytes at all.")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise _refused(
            "The server sent HTML, not a zip archive.",
            why="Most likely it is a page about the download, or one that asks for a log-in.",
            hint="Give the URL that the page's download button leads to.",
        )
    known = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}
    for magic, name in known.items():
        if head.startswith(magic):
            raise _refused(f"The archive is {name}, not zip.", why="Only zip archives are unpacked.")
    if b"PK\3\4" not in head and not head.startswith(_END_SIGNATURE):
        raise _refused("The file is not a zip archive.", why=f"It begins with {head[:8]!r}.")


def _check_member_count(raw: IO[bytes], limits: Limits) -> None:
    """Judge by the size of the directory, since reading a million entries takes a gigabyte of memory by itself."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - _END_RECORD))
    tail = raw.read()
    at = tail.rfind(_END_SIGNATURE)
    if at < 0:
        raise _refused("The archive is truncated.", why="Its end, where the directory is, is missing.")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    if directory == _IN_ZIP64:  # zip64: the size stands in a record of its own
        record = tail.rfind(b"PK\6\6", 0, at)
        directory = int.from_bytes(tail[record + 40 : record + 48], "little") if record >= 0 else directory
    raw.seek(0)
    if directory > limits.max_members * (_DIRECTORY_ENTRY + _TYPICAL_NAME):
        raise _too_many(limits)


def _checked(file: zipfile.ZipFile, archive: Path, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the members to unpack; raises StageFailed when anything about any member is wrong."""
    members = file.infolist()
    if len(members) > limits.max_members:
        raise _too_many(limits)
    for member in members:
        _check_name(member, limits)
        _check_file_kind(member)
        _check_sizes(member, limits)
    _check_collisions(members)
    if (total := sum(member.file_size for member in members)) > limits.max_bytes:
        raise _refused(
            f"The archive unpacks to {total:,} bytes.",
            why=f"This worker unpacks {limits.max_bytes:,} at most.",
            hint="Raise ORCH_EXTRACT_MAX_BYTES, or unpack it on the host and give the folder.",
        )
    failpoints.reach("archive.check")
    with archive.open("rb") as raw:
        _check_overlap(raw, members, end=file.start_dir)
    return [member for member in members if not _is_clutter(member.filename)]


def _check_name(member: zipfile.ZipInfo, limits: Limits) -> None:
    name = member.orig_filename  # `filename` is cut at a NUL
    parts = name.removesuffix("/").split("/")
    lengths = [len(part.encode(errors="surrogateescape")) for part in parts]
    faults = {
        "has a NUL in its name": "\0" in name,
        "has a backslash in its name": "\\" in name,
        "has an absolute path": name.startswith("/"),
        "names a drive": parts[0][1:2] == ":",
        "leads out of the archive": ".." in parts,
        "has an empty part in its path": "" in parts or "." in parts,
        f"lies deeper than {limits.max_depth} folders": len(parts) > limits.max_depth,
        f"has a path of more than {_LONGEST_PATH} bytes": sum(lengths) + len(parts) > _LONGEST_PATH,
        f"has a name of more than {_LONGEST_NAME} bytes": max(lengths) > _LONGEST_NAME,
    }
    for fault, present in faults.items():
        if present:
            raise _member_refused(name, fault, "Nothing of such an archive is unpacked.")


def _check_file_kind(member: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _member_refused(member.filename, "is a link", "A link can lead anywhere; pack the files themselves.")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise _member_refused(member.filename, "is a device or pipe", "Only files and folders are unpacked.")
    if member.flag_bits & 0x1:
        raise _member_refused(member.filename, "is encrypted", "There is nowhere to give a password.")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        method = f"is compressed by method {member.compress_type}"
        raise _member_refused(member.filename, method, "Only stored and deflated members are unpacked.")


def _check_sizes(member: zipfile.ZipInfo, limits: Limits) -> None:
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise _member_refused(member.filename, "lies about its size", "Stored bytes and size differ.")
    if member.is_dir() and member.file_size:
        raise _member_refused(member.filename, "is a folder with contents of its own", "Folders have none.")
    big = member.file_size >= limits.ratio_matters_from
    if big and member.file_size > limits.max_ratio * max(1, member.compress_size):
        raise _member_refused(
            member.filename,
            "is a decompression bomb",
            f"It grows from {member.compress_size:,} to {member.file_size:,} bytes; pictures hardly shrink.",
        )


def _check_collisions(members: list[zipfile.ZipInfo]) -> None:
    spellings: dict[str, str] = {}  # folded path: as it is written
    files: set[str] = set()
    for member in members:
        name = member.filename.removesuffix("/")
        folded = unicodedata.normalize("NFC", name).casefold()
        if not member.is_dir():
            if folded in files:
                same = spellings[folded] == name
                raise _member_refused(name, "is there twice" if same else "differs from another name in case only", "")
            files.add(folded)
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            known = spellings.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
            if known != path:
                raise _member_refused(path, "differs from another name in case only", f"The other is {known}.")
    folders = {path.rpartition("/")[0] for path in spellings}
    if both := files & folders:
        raise _member_refused(spellings[min(both)], "is both a file and a folder", "")


def _check_overlap(raw: IO[bytes], members: list[zipfile.ZipInfo], *, end: int) -> None:
    """Check that no byte belongs to two members: that is how small archives hold terabytes.

    D. Fifield, "A better zip bomb", https://www.usenix.org/conference/woot19/presentation/fifield
    """
    free_from = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        raw.seek(max(0, member.header_offset))  # a damaged directory gives negative ones
        header = raw.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\3\4"):
            raise _member_refused(member.filename, "is not where the directory says", "The archive is damaged.")
        if member.header_offset < free_from:
            raise _member_refused(member.filename, "overlaps another member", "Such an archive is made to do harm.")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        free_from = member.header_offset + _LOCAL_HEADER + names + member.compress_size
        if free_from > end:
            raise _member_refused(member.filename, "reaches into the directory", "The archive is damaged.")


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
        list(pool.map(_sync, [*paths, *folders]))


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
            raise _member_refused(member.filename, "is damaged", f"{error}.") from error
    if written != member.file_size:
        raise _member_refused(member.filename, "lies about its size", f"The directory says {member.file_size:,} bytes.")
    return written


def _is_clutter(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _too_many(limits: Limits) -> errors.StageFailed:
    return _refused(
        f"The archive has more than {limits.max_members:,} members.",
        why="Its directory alone would fill the memory.",
        hint="Unpack it on the host and give the folder.",
    )


def _member_refused(name: str, fault: str, why: str) -> errors.StageFailed:
    shown = name if name.isprintable() and len(name) <= _LONGEST_NAME else ascii(name[:_LONGEST_NAME])
    return _refused(f"The archive's member {shown} {fault}.", why=why or None)


def _refused(
    message: str, *, why: str | None, hint: str = "Pack the folder anew as an ordinary zip archive."
) -> errors.StageFailed:
    return errors.StageFailed(message, reason=states.Reason.BAD_INPUT, why=why, hint=hint)
