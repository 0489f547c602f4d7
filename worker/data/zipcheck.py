"""Which zip archives are refused, and why: the whole directory is checked before the first byte is unpacked.

What is checked is what the standard library does not (CPython 3.11 renames `../x` into the target, writes a link as a
file and reads overlapping entries without end): names, kinds of file, sizes, ratios and the layout of the archive.
"""

import os
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator import errors, failpoints
from worker.refusals import refused

_LOCAL_HEADER = 30  # bytes before its name and its extra field
_DIRECTORY_ENTRY = 46  # likewise
_END_RECORD = 22
_LONGEST_COMMENT = 65_535
_END_SIGNATURE = b"PK\5\6"
_ENTRY_SIGNATURE = b"PK\1\2"
_LONGEST_NAME = 255  # bytes of one part, as file systems have it
_LONGEST_PATH = 1024  # bytes; the kernel takes 4096, the cache's own folders included
_TYPICAL_NAME = 128  # bytes of a path and its extra fields, generously
_IN_ZIP64 = 0xFFFF_FFFF
_MANY_IN_ZIP64 = 0xFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # by password, by certificate, and a directory that is encrypted itself
_SIZES_FOLLOW = 0x8  # the local header has no sizes: they stand behind the data

#: What people send in place of a zip archive, by its first bytes.
_OTHER_KINDS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"%PDF-": "PDF",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"SQLite format 3": "an SQLite database",
    b"version https://git-lfs": "a Git LFS pointer",
}
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an archive may hold."""

    max_bytes: int  #: unpacked
    max_members: int = 500_000
    max_depth: int = 16  #: folders
    max_ratio: int = 200  #: of a member's size to its packed size; deflate's own end is 1032
    ratio_matters_from: int = 2**20  #: bytes; a small member may be as empty as it likes
    whole_ratio_matters_from: int = 2**26  #: bytes; so many small members may not


@contextmanager
def opened(archive: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Yield the archive with its directory read; raises StageFailed where it is none, or too long to be read."""
    failpoints.reach("archive.open")
    with archive.open("rb") as raw:
        _check_kind(raw)
        _check_end(raw, limits)
        try:
            file = zipfile.ZipFile(raw)
        except (
            zipfile.BadZipFile,
            UnicodeDecodeError,
            NotImplementedError,
            ValueError,
            OverflowError,
            struct.error,
        ) as error:
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
    kinds = (name for magic, name in _OTHER_KINDS.items() if head.startswith(magic))
    kind = "tar" if head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC) else next(kinds, None)
    if kind is not None:
        raise _refused(f"The archive is {kind}, not zip.", why="Only zip archives are unpacked.")
    if b"PK\3\4" not in head and not head.startswith(_END_SIGNATURE):
        raise _refused("The file is not a zip archive.", why=f"It begins with {head[:8]!r}.")


def _check_end(raw: IO[bytes], limits: Limits) -> None:
    """Check the record that ends an archive, before its directory is read.

    Only a record whose comment ends with the file counts: readers differ in what they make of others. Members are
    counted before zipfile reads them: a million of its objects take a gigabyte of memory.
    """
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - _END_RECORD - _LONGEST_COMMENT))
    tail = raw.read()
    raw.seek(0)
    signatures = [match.start() for match in re.finditer(re.escape(_END_SIGNATURE), tail)]
    ends = [
        at for at in signatures if at + _END_RECORD + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)
    ]
    if not signatures:
        raise _refused("The archive is truncated.", why="Its end, where the directory is, is missing.")
    if not ends:
        raise _refused("The archive does not end where it says.", why="It was cut, or something was put behind it.")
    if len(ends) > 1 or ends != signatures[-1:]:
        raise _refused("The archive has two ends.", why="Its comment imitates one; programs would read it differently.")
    at = ends[0]
    disk, directory_disk, here, members, directory = struct.unpack("<HHHHI", tail[at + 4 : at + 16])
    if disk not in {0, _MANY_IN_ZIP64} or directory_disk not in {0, _MANY_IN_ZIP64} or here != members:
        raise _refused("The archive is one part of several.", why="Its directory is spread over other files.")
    end = size - len(tail) + at
    if directory == _IN_ZIP64 or members == _MANY_IN_ZIP64:  # zip64: they stand in a record of their own
        record = tail.rfind(b"PK\6\6", 0, at)
        if record >= 0:
            end = size - len(tail) + record
            directory = int.from_bytes(tail[record + 40 : record + 48], "little")
    if directory > limits.max_members * (_DIRECTORY_ENTRY + _TYPICAL_NAME):
        raise _too_many(limits)
    raw.seek(max(0, end - directory))
    if raw.read(directory).count(_ENTRY_SIGNATURE) > limits.max_members:
        raise _too_many(limits)
    raw.seek(0)


def checked(file: zipfile.ZipFile, archive: Path, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the members to unpack; raises StageFailed when anything about any member is wrong."""
    members = file.infolist()
    for member in members:
        _check_name(member, limits)
        _check_file_kind(member)
        _check_sizes(member, limits)
    _check_collisions(members)
    _check_whole(members, limits)
    failpoints.reach("archive.check")
    with archive.open("rb") as raw:
        _check_layout(raw, members, end=file.start_dir)
    return [member for member in members if not _is_clutter(member.filename)]


def _check_whole(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(member.file_size for member in members)
    if total > limits.max_bytes:
        raise _refused(
            f"The archive unpacks to {total:,} bytes.",
            why=f"This worker unpacks {limits.max_bytes:,} at most.",
            hint="Raise ORCH_EXTRACT_MAX_BYTES, or unpack it on the host and give the folder.",
        )
    packed = sum(member.compress_size for member in members)
    if total >= limits.whole_ratio_matters_from and total > limits.max_ratio * packed:
        raise _refused(
            "The archive is a decompression bomb.",
            why=f"It grows from {packed:,} to {total:,} bytes in {len(members):,} members; pictures hardly shrink.",
        )


def _check_name(member: zipfile.ZipInfo, limits: Limits) -> None:
    name = member.orig_filename  # `filename` is cut at a NUL
    parts = name.removesuffix("/").split("/")
    lengths = [len(part.encode(errors="surrogateescape")) for part in parts]
    faults = {
        "has a NUL in its name": "\0" in name,
        "has a control character in its name": any(unicodedata.category(letter) == "Cc" for letter in name),
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
            raise member_refused(name, fault, "Nothing of such an archive is unpacked.")


def _check_file_kind(member: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise member_refused(member.filename, "is a link", "A link can lead anywhere; pack the files themselves.")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise member_refused(member.filename, "is a device or pipe", "Only files and folders are unpacked.")
    if member.flag_bits & _ENCRYPTED:
        raise member_refused(member.filename, "is encrypted", "There is nowhere to give a password.")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        method = f"is compressed by method {member.compress_type}"
        raise member_refused(member.filename, method, "Only stored and deflated members are unpacked.")


def _check_sizes(member: zipfile.ZipInfo, limits: Limits) -> None:
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise member_refused(member.filename, "lies about its size", "Stored bytes and size differ.")
    if member.is_dir() and member.file_size:
        raise member_refused(member.filename, "is a folder with contents of its own", "Folders have none.")
    big = member.file_size >= limits.ratio_matters_from
    if big and member.file_size > limits.max_ratio * max(1, member.compress_size):
        raise member_refused(
            member.filename,
            "is a decompression bomb",
            f"It grows from {member.compress_size:,} to {member.file_size:,} bytes; pictures hardly shrink.",
        )


def _check_collisions(members: list[zipfile.ZipInfo]) -> None:
    spellings: dict[str, str] = {}  # folded path: as it is written
    files: set[str] = set()
    for member in members:
        name = member.filename.removesuffix("/")
        if not member.is_dir():
            folded = _folded(name)
            if folded in files and spellings[folded] == name:
                raise member_refused(name, "is there twice", "One of them would overwrite the other.")
            files.add(folded)
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            known = spellings.setdefault(_folded(path), path)
            if known != path:
                same = unicodedata.normalize("NFC", known) == unicodedata.normalize("NFC", path)
                fault = f"differs from another name in {'how its accents are coded' if same else 'case'} only"
                raise member_refused(path, fault, f"The other is {known}; some file systems take them for one.")
    folders = {path.rpartition("/")[0] for path in spellings}
    if both := files & folders:
        raise member_refused(spellings[min(both)], "is both a file and a folder", "It cannot be unpacked as both.")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _check_layout(raw: IO[bytes], members: list[zipfile.ZipInfo], *, end: int) -> None:
    """Check each member's own header against the directory, and that no byte belongs to two members.

    Overlaps are how small archives hold terabytes: D. Fifield, "A better zip bomb",
    https://www.usenix.org/conference/woot19/presentation/fifield
    """
    free_from = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        raw.seek(max(0, member.header_offset))
        header = raw.read(_LOCAL_HEADER) if member.header_offset >= 0 else b""  # damaged directories give such
        if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\3\4"):
            raise member_refused(member.filename, "is not where the directory says", "The archive is damaged.")
        if member.header_offset < free_from:
            raise member_refused(member.filename, "overlaps another member", "Such an archive is made to do harm.")
        _check_header(header, member)
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        free_from = member.header_offset + _LOCAL_HEADER + names + member.compress_size
        if free_from > end:
            raise member_refused(member.filename, "reaches into the directory", "The archive is damaged.")


def _check_header(header: bytes, member: zipfile.ZipInfo) -> None:
    flags, method, _, _, crc, packed, size = struct.unpack("<HHHHIII", header[6:26])
    told = (method, crc, packed, size)
    known = (member.compress_type, member.CRC, member.compress_size, member.file_size)
    if flags & _ENCRYPTED:
        raise member_refused(member.filename, "is encrypted", "There is nowhere to give a password.")
    unsaid = flags & _SIZES_FOLLOW or _IN_ZIP64 in {packed, size}
    if told[0] != known[0] or (told != known and not unsaid):
        fault = "is described in two ways"
        raise member_refused(member.filename, fault, "Its own header and the directory disagree about it.")


def _is_clutter(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _too_many(limits: Limits) -> errors.StageFailed:
    return _refused(
        f"The archive has more than {limits.max_members:,} members.",
        why="Its directory alone would fill the memory.",
        hint="Unpack it on the host and give the folder.",
    )


def member_refused(name: str, fault: str, why: str) -> errors.StageFailed:
    """Return the error that refuses an archive because of one member."""
    shown = name if name.isprintable() and len(name) <= _LONGEST_NAME else ascii(name[:_LONGEST_NAME])
    return _refused(f"The archive's member {shown} {fault}.", why=why)


def _refused(
    message: str, *, why: str | None, hint: str = "Pack the folder anew as an ordinary zip archive."
) -> errors.StageFailed:
    return refused(message, why=why, hint=hint)
