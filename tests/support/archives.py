"""Zip builders: well-formed archives, and byte by byte those that no library would write."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DEFLATED = zipfile.ZIP_DEFLATED
STORED = zipfile.ZIP_STORED
REGULAR = 0o100644
LINK = 0o120777
FIFO = 0o010644
DEVICE = 0o020644


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return an ordinary zip of {name: bytes}; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member as `raw` writes it. What is None is told truthfully."""

    name: str | bytes
    data: bytes = b"x"
    method: int = STORED
    mode: int = REGULAR  #: UNIX mode, in the upper half of the external attributes
    flags: int = 0  #: general purpose flags: 1 is encrypted
    size: int | None = None  #: declared uncompressed size
    compressed: int | None = None  #: declared compressed size
    crc: int | None = None
    offset: int | None = None  #: declared offset of the local header
    local_name: bytes | None = None  #: name in the local header


def raw(entries: Iterable[Entry], *, count: int | None = None) -> bytes:
    """Return a zip of exactly these entries; `count` is the number of members it claims to have."""
    body, directory, number = bytearray(), bytearray(), 0
    for entry in entries:
        name = entry.name if isinstance(entry.name, bytes) else entry.name.encode()
        stored = packed(entry)
        size = len(entry.data) if entry.size is None else entry.size
        length = len(stored) if entry.compressed is None else entry.compressed
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        offset = len(body) if entry.offset is None else entry.offset
        common = struct.pack("<HHHHIII", entry.flags, entry.method, 0, 0x21, crc, length, size)
        inner = name if entry.local_name is None else entry.local_name
        body += b"PK\3\4" + struct.pack("<H", 20) + common + struct.pack("<HH", len(inner), 0) + inner + stored
        directory += b"PK\1\2" + struct.pack("<HH", 3 << 8 | 20, 20) + common
        directory += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, entry.mode << 16, offset) + name
        number += 1
    claimed = number if count is None else count
    end = struct.pack("<HHHHIIH", 0, 0, claimed, claimed, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\5\6" + end


def packed(entry: Entry) -> bytes:
    """Return the data of an entry as it stands in the archive."""
    if entry.method != DEFLATED:
        return entry.data
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(entry.data) + packer.flush()
