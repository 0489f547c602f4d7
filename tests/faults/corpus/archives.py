"""Archives that must not be unpacked. All of them hold a good data set beside what is wrong with them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.support import archives, pictures
from tests.support.archives import DEFLATED, Entry

ANEW = "Pack the folder anew"
UNPACKED = "give the folder"


@dataclass(frozen=True)
class Case:
    """An archive, what its refusal says and hints."""

    name: str
    make: Callable[[], bytes]  #: when it is wanted: some are large
    guard: str
    hint: str = ANEW

    @property
    def data(self) -> bytes:
        """The archive, made anew at each look."""
        return self.make()


MEMBERS = dict(sorted(pictures.members(splits={"train": 2, "validation": 1}).items()))
SET = tuple(Entry(name=name, data=data) for name, data in MEMBERS.items())
PLAIN = archives.zipped(MEMBERS)
FIRST, NAME = SET[0], next(iter(MEMBERS))
EVIL = b"evil" * 10


def beside(*entries: Entry) -> bytes:
    """Return the good set and these."""
    return archives.raw([*SET, *entries])


def with_comment(comment: bytes, *, length: int | None = None) -> bytes:
    return PLAIN[:-2] + struct.pack("<H", len(comment) if length is None else length) + comment


def end(**lies: int) -> bytes:
    """Return the good set with lies in its end record."""
    fields = dict(
        zip(
            ("disk", "start", "here", "members", "size", "offset"), struct.unpack("<HHHHII", PLAIN[-18:-2]), strict=True
        )
    )
    return PLAIN[:-18] + struct.pack("<HHHHII", *(fields | lies).values()) + PLAIN[-2:]


def zip64(*, size: int, offset: int, members: int, extra: bytes = b"") -> bytes:
    """Return the good set, whose end record refers to a zip64 one that says this."""
    here = len(PLAIN) - 22
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, members, members, size, offset) + extra
    locator = b"PK\6\7" + struct.pack("<IQI", 0, here, 1)
    return (
        PLAIN[:-22]
        + record
        + locator
        + b"PK\5\6"
        + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0)
    )


def many(number: int) -> bytes:
    """Return an archive whose directory lists the same member so many times."""
    one = archives.raw([Entry(name="a")])
    at = one.index(b"PK\1\2")
    directory = one[at : at + 47] * number
    return one[:at] + directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), at, 0)


def local(entry: Entry, at: int, value: bytes) -> bytes:
    """Return the set and a member in whose own header other bytes stand at this place."""
    data = bytearray(beside(entry))
    start = data.rindex(b"PK\3\4")
    data[start + at : start + at + len(value)] = value
    return bytes(data)


def overlapping() -> bytes:
    """Return two members, the second of which lies within the data of the first."""
    inner = archives.raw([Entry(name="b", data=b"y" * 50)])
    return archives.raw([Entry(name="a", data=inner), Entry(name="b", data=b"y" * 50, offset=30 + len("a"))])


def bombs(number: int) -> bytes:
    """Return members that each grow as far as a small one may."""
    return archives.raw([Entry(name=f"{index}", data=bytes(2**20 - 1), method=DEFLATED) for index in range(number)])


_ENDLESS = "lies deeper than 16 folders"
_SQUEEZED = Entry(name="g", data=b"x" * 99, method=DEFLATED)
_CUT = "does not end where it says"

NAMES = [
    Case("parent", lambda: beside(Entry(name="../evil", data=EVIL)), "leads out of the archive"),
    Case("parent inside", lambda: beside(Entry(name="train/../../evil")), "leads out of the archive"),
    Case("parent at the end", lambda: beside(Entry(name="train/..")), "leads out of the archive"),
    Case("parent as folder", lambda: beside(Entry(name="../", data=b"")), "leads out of the archive"),
    Case("absolute", lambda: beside(Entry(name="/etc/evil")), "has an absolute path"),
    Case("absolute folder", lambda: beside(Entry(name="/", data=b"")), "has an absolute path"),
    Case("drive", lambda: beside(Entry(name="C:/evil")), "names a drive"),
    Case("drive relative", lambda: beside(Entry(name="c:evil")), "names a drive"),
    Case("backslash", lambda: beside(Entry(name="..\\evil")), "has a backslash"),
    Case("unc", lambda: beside(Entry(name="\\\\host\\share")), "has a backslash"),
    Case("nul", lambda: beside(Entry(name="evil\0.jpg")), "has a NUL"),
    Case("line break", lambda: beside(Entry(name="evil\n.jpg")), "has a control character"),
    Case("escape", lambda: beside(Entry(name="\x1b[2J.jpg")), "has a control character"),
    Case("empty name", lambda: beside(Entry(name="")), "has an empty part"),
    Case("double slash", lambda: beside(Entry(name="train//1.jpg")), "has an empty part"),
    Case("dot part", lambda: beside(Entry(name="train/./1.jpg")), "has an empty part"),
    Case("too deep", lambda: beside(Entry(name="/".join("abcdefghijklmnopq"))), _ENDLESS),
    Case("far too deep", lambda: beside(Entry(name="a/" * 500 + "b")), _ENDLESS),
    Case("long path", lambda: beside(Entry(name="/".join("x" * 250 for _ in range(5)))), "more than 1024 bytes"),
    Case("long name", lambda: beside(Entry(name="x" * 256)), "more than 255 bytes"),
    Case("long in bytes", lambda: beside(Entry(name="é" * 128, flags=0x800)), "more than 255 bytes"),
    Case("longest of all", lambda: beside(Entry(name="x" * 65_535)), "more than 1024 bytes"),
    Case("bad utf-8", lambda: beside(Entry(name=b"\xff\xfe", flags=0x800)), "directory is damaged"),
    Case("duplicate", lambda: beside(FIRST), "is there twice"),
    Case("case", lambda: beside(Entry(name=NAME.upper())), "in case only"),
    Case("case of a folder", lambda: beside(Entry(name="train/Cats/2.jpg")), "in case only"),
    Case("case beyond ascii", lambda: beside(Entry(name="Ä", flags=0x800), Entry(name="ä", flags=0x800)), "in case only"),
    Case("unicode forms", lambda: beside(Entry(name="é", flags=0x800), Entry(name="e\u0301", flags=0x800)), "accents are coded"),
    Case("file and folder", lambda: beside(Entry(name="train/cats")), "both a file and a folder"),
    Case("file under a file", lambda: beside(Entry(name=f"{NAME}/x")), "both a file and a folder"),
]  # fmt: skip

KINDS = [
    Case("link", lambda: beside(Entry(name="l", data=b"/etc/passwd", mode=archives.LINK)), "is a link"),
    Case("link to a folder", lambda: beside(Entry(name="l", data=b"..", mode=archives.LINK), Entry(name="l/x")), "is a link"),
    Case("pipe", lambda: beside(Entry(name="p", mode=archives.FIFO)), "is a device or pipe"),
    Case("device", lambda: beside(Entry(name="d", mode=archives.DEVICE)), "is a device or pipe"),
    Case("block device", lambda: beside(Entry(name="d", mode=0o060644)), "is a device or pipe"),
    Case("socket", lambda: beside(Entry(name="s", mode=0o140644)), "is a device or pipe"),
    Case("encrypted", lambda: beside(Entry(name="e", flags=1)), "is encrypted"),
    Case("encrypted strongly", lambda: beside(Entry(name="e", flags=0x40)), "is encrypted"),
    Case("encrypted directory", lambda: beside(Entry(name="e", flags=0x2000)), "is encrypted"),
    Case("encrypted by AES", lambda: beside(Entry(name="e", flags=1, method=99)), "is encrypted"),
    Case("encrypted by its own header", lambda: local(Entry(name="e"), 6, b"\1"), "is encrypted"),
    Case("bzip2", lambda: beside(Entry(name="b", method=12)), "is compressed by method 12"),
    Case("lzma", lambda: beside(Entry(name="b", method=14)), "is compressed by method 14"),
    Case("zstandard", lambda: beside(Entry(name="b", method=93)), "is compressed by method 93"),
    Case("unknown method", lambda: beside(Entry(name="b", method=77)), "is compressed by method 77"),
    Case("method told in two ways", lambda: local(Entry(name="b"), 8, b"\x08"), "is described in two ways"),
    Case("size told in two ways", lambda: local(Entry(name="b"), 22, b"\xff"), "is described in two ways"),
    Case("packed size told in two ways", lambda: local(Entry(name="b"), 18, b"\x02"), "is described in two ways"),
    Case("crc told in two ways", lambda: local(Entry(name="b"), 14, b"\xff\xff"), "is described in two ways"),
]  # fmt: skip

SIZES = [
    Case("stored lie", lambda: beside(Entry(name="s", data=b"abc", size=10**6)), "Stored bytes and size differ"),
    Case("larger lie", lambda: beside(Entry(name="d", data=b"x" * 9, method=DEFLATED, size=1000)), "The directory says 1,000 bytes"),
    Case("smaller lie", lambda: beside(Entry(name="d", data=b"x" * 999, method=DEFLATED, size=5)), "is damaged"),
    Case("crc", lambda: beside(Entry(name="c", crc=1)), "Bad CRC-32"),
    Case("garbled", lambda: beside(Entry(name="g", data=b"\xff" * 40)).replace(b"\xff" * 40, bytes(40)), "Bad CRC-32"),
    Case("no deflate", lambda: beside(_SQUEEZED).replace(archives.packed(_SQUEEZED), b"\xff" * len(archives.packed(_SQUEEZED))), "is damaged"),
    Case("other name inside", lambda: beside(Entry(name="n", local_name=b"m")), "is damaged"),
    Case("folder with contents", lambda: beside(Entry(name="f/", data=b"abc", mode=0o040755)), "with contents of its own"),
    Case("bomb", lambda: beside(Entry(name="b", data=bytes(5_000_000), method=DEFLATED)), "b is a decompression bomb"),
    Case("claimed bomb", lambda: beside(Entry(name="b", method=DEFLATED, size=9_000_000)), "b is a decompression bomb"),
    Case("many small bombs", lambda: bombs(65), "The archive is a decompression bomb"),
    Case("too large", lambda: beside(*(Entry(name=f"{i}", data=bytes(900_000)) for i in range(112))), "unpacks to", UNPACKED),
    Case("said to be too large", lambda: beside(*(Entry(name=f"{i}", size=2**20 - 1, compressed=2**20 - 1) for i in range(112))), "unpacks to", UNPACKED),
    Case("too many", lambda: many(500_001), "more than 500,000 members", UNPACKED),
    Case("a million", lambda: many(1_000_000), "more than 500,000 members", UNPACKED),
    Case("huge directory claimed", lambda: end(size=0xFFFF_FFF0), "more than 500,000 members", UNPACKED),
]  # fmt: skip

LAYOUT = [
    Case("overlap", overlapping, "overlaps another member"),
    Case("same data twice", lambda: beside(Entry(name="again", offset=0)), "overlaps another member"),
    Case("no header there", lambda: beside(Entry(name="n", offset=5)), "is not where the directory says"),
    Case("beyond the file", lambda: beside(Entry(name="n", offset=10**9)), "is not where the directory says"),
    Case("into the directory", lambda: beside(Entry(name="n", compressed=60, size=60)), "into the directory"),
    Case("directory beyond the file", lambda: end(size=len(PLAIN) + 1), "directory is damaged"),
    Case("directory elsewhere", lambda: end(offset=len(PLAIN)), "is not where the directory says"),
    Case("directory cut short", lambda: end(size=end().index(b"PK\1\2") + 50), "directory is damaged"),
    Case("first of several", lambda: end(disk=1), "is one part of several"),
    Case("directory on another disk", lambda: end(start=2), "is one part of several"),
    Case("fewer members here", lambda: end(here=1), "is one part of several"),
    Case("zip64 of nothing", lambda: zip64(size=2**40, offset=0, members=1), "more than 500,000 members", UNPACKED),
    Case("zip64 elsewhere", lambda: zip64(size=46, offset=2**40, members=1), "directory is damaged"),
    Case("zip64 of a negative offset", lambda: zip64(size=10**6, offset=2**63, members=1), "directory is damaged"),
    Case("truncated", lambda: PLAIN[:-30], "is truncated"),
    Case("cut in the middle", lambda: PLAIN[: len(PLAIN) // 2], "is truncated"),
    Case("cut after a header", lambda: PLAIN[:31], "is truncated"),
    Case("cut by a byte", lambda: PLAIN[:-1], _CUT),
    Case("cut in its comment", lambda: with_comment(b"a comment")[:-3], _CUT),
    Case("bytes behind it", lambda: PLAIN + b"\r\n", _CUT),
    Case("another file behind it", lambda: PLAIN + b"#!/bin/sh\nevil\n", _CUT),
    Case("a comment longer than said", lambda: with_comment(b"comment", length=3), _CUT),
    Case("a comment shorter than said", lambda: with_comment(b"comment", length=60_000), _CUT),
    Case("an end in its comment", lambda: with_comment(archives.raw([Entry(name="x")])[-22:]), "has two ends"),
    Case("an archive in its comment", lambda: with_comment(archives.raw([Entry(name="x")])), "has two ends"),
    Case("an end's mark in its comment", lambda: with_comment(b"PK\5\6 is no end"), "has two ends"),
]  # fmt: skip

OTHER = [
    Case("empty", lambda: b"", "The archive is empty"),
    Case("html", lambda: b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "sent HTML", "download button"),
    Case("html without doctype", lambda: b"<HTML>404</HTML>", "sent HTML", "download button"),
    Case("html behind a byte order mark", lambda: b"\xef\xbb\xbf<html>", "sent HTML", "download button"),
    Case("xml", lambda: b"<?xml version='1.0'?><Error>AccessDenied</Error>", "sent HTML", "download button"),
    Case("gzip", lambda: b"\x1f\x8b" + bytes(100), "is gzip, not zip"),
    Case("bzip2 file", lambda: b"BZh9" + bytes(100), "is bzip2, not zip"),
    Case("xz", lambda: b"\xfd7zXZ\0" + bytes(100), "is xz, not zip"),
    Case("zstandard file", lambda: b"\x28\xb5\x2f\xfd" + bytes(100), "is Zstandard, not zip"),
    Case("7-zip", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100), "is 7-Zip, not zip"),
    Case("rar", lambda: b"Rar!\x1a\7" + bytes(100), "is RAR, not zip"),
    Case("tar", lambda: bytes(257) + b"ustar\x0000" + bytes(1000), "is tar, not zip"),
    Case("pdf", lambda: b"%PDF-1.7\n" + bytes(100), "is PDF, not zip"),
    Case("a picture", lambda: next(iter(MEMBERS.values())), "is a JPEG picture, not zip"),
    Case("git lfs", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    Case("json", lambda: b'{"error": "not found"}', "is not a zip archive"),
    Case("noise", lambda: bytes(range(256)) * 4, "is not a zip archive"),
    Case("one byte", lambda: b"P", "is not a zip archive"),
    Case("a spool of zeros", lambda: bytes(10**6), "is not a zip archive"),
]  # fmt: skip

INSIDE = [
    Case("an archive in an archive", lambda: archives.zipped({"set.zip": PLAIN}), "no train folder", "Lay it out"),
    Case("no member", lambda: archives.zipped({}), "no train folder", "Lay it out"),
    Case("clutter alone", lambda: archives.zipped({"__MACOSX/train/cats/1.jpg": b"x"}), "no train folder", "Lay it out"),
    Case("no pictures", lambda: archives.zipped({f"{n}.txt": b"x" for n in MEMBERS}), "no pictures in train", "Convert the pictures"),
    Case("a cut picture", lambda: archives.zipped(MEMBERS | {"train/cats/9.png": MEMBERS["train/cats/1.png"][:99]}), "is damaged", "Remove or replace"),
    Case("a program as picture", lambda: archives.zipped(MEMBERS | {"train/cats/9.png": b"\x7fELF" + bytes(99)}), "is not a picture", "Remove or replace"),
]  # fmt: skip

CASES = [*NAMES, *KINDS, *SIZES, *LAYOUT, *OTHER, *INSIDE]
