"""Folders that are no data set to train on. Each is a good one to which something is done."""

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import pictures

LAID_OUT = "train/CLASS/picture.jpg"
REPLACE = "Remove or replace them"


@dataclass(frozen=True)
class Case:
    """What is done to a good set, what its refusal says and hints."""

    name: str
    spoil: Callable[[Path], object]
    guard: str
    hint: str


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """Return a PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """Return a PNG whose compressed comment grows to 100 MB."""
    whole = pictures.encoded(pictures.noise(0), "PNG")
    body = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return whole[:33] + chunk + whole[33:]


JPEG = pictures.encoded(pictures.noise(0, size=(200, 200)))
PNG = pictures.encoded(pictures.noise(0, size=(200, 200)), "PNG")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def picture(data: bytes, name: str = "train/cats/9.jpg") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def gone(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / name)


def emptied(name: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        shutil.rmtree(folder / name)
        (folder / name).mkdir()

    return spoil


def made(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).mkdir()


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def as_text(pattern: str) -> Callable[[Path], object]:
    return lambda folder: [path.rename(path.with_suffix(".txt")) for path in folder.glob(pattern)]


def linked(name: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(target)


def flat(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    (folder / "train" / "1.jpg").write_bytes(JPEG)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "train" / "cats" / "9.jpg")


LAYOUT = [
    Case("no train folder", gone("train"), "has no train folder", LAID_OUT),
    Case("train in capitals", renamed("train", "Train"), "has no train folder", LAID_OUT),
    Case("nothing at all", emptied("."), "There are no folders in it", LAID_OUT),
    Case("no validation", gone("validation"), "has no validation split", "validation/CLASS/"),
    Case("validation by another name", renamed("validation", "eval"), "has no validation split", "validation/CLASS/"),
    Case("one class", gone("train/dogs"), "one class only: cats", "each further class"),
    Case("no class folders", flat, "has no class folders", LAID_OUT),
    Case("an empty train folder", emptied("train"), "has no class folders", LAID_OUT),
    Case("an empty class", emptied("train/dogs"), "no pictures of dogs in train", "remove it from both splits"),
    Case("a class empty in validation", emptied("validation/cats"), "no pictures of cats in validation", "remove it from both splits"),
    Case("a class missing in validation", gone("validation/cats"), "Only train has cats", "the same class folders"),
    Case("a class more in validation", made("validation/mice"), "Only validation has mice", "the same class folders"),
    Case("a class spelt otherwise", renamed("validation/cats", "validation/Cats"), "different classes", "the same class folders"),
    Case("no pictures in train", as_text("train/*/*"), "no pictures in train", "Convert the pictures"),
    Case("no pictures in validation", as_text("validation/*/*"), "no pictures in validation", "Convert the pictures"),
    Case("other endings alone", as_text("train/dogs/*"), "no pictures of dogs in train", "remove it from both splits"),
]  # fmt: skip

PICTURES = [
    Case("zero bytes", picture(b""), "train/cats/9.jpg is empty", REPLACE),
    Case("html", picture(b"<html>not found</html>"), "train/cats/9.jpg is not a picture", REPLACE),
    Case("text", picture(b"a cat"), "train/cats/9.jpg is not a picture", REPLACE),
    Case("svg", picture(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "train/cats/9.jpg is not a picture", REPLACE),
    Case("postscript by another name", picture(EPS), "train/cats/9.jpg is not a picture", REPLACE),
    Case("pdf by another name", picture(b"%PDF-1.7\n"), "train/cats/9.jpg is not a picture", REPLACE),
    Case("cut in the header", picture(JPEG[:300]), "train/cats/9.jpg is damaged", REPLACE),
    Case("cut jpeg", picture(JPEG[:-900]), "image file is truncated", REPLACE),
    Case("jpeg of its first bytes", picture(JPEG[:3]), "train/cats/9.jpg is not a picture", REPLACE),
    Case("cut png", picture(PNG[:-500], "train/cats/9.png"), "image file is truncated", REPLACE),
    Case("png with a broken checksum", picture(PNG[:60] + b"\0\0\0\0" + PNG[64:], "train/cats/9.png"), "train/cats/9.png is damaged", REPLACE),
    Case("png of no width", picture(png(0, 8)), "train/cats/9.jpg is", REPLACE),
    Case("png of no data", picture(png(8, 8)), "train/cats/9.jpg is damaged", REPLACE),
    Case("giant", picture(png(10_000, 10_000)), "has more than 89,478,485 pixels", REPLACE),
    Case("more than giant", picture(png(60_000, 60_000)), "has more than 89,478,485 pixels", REPLACE),
    Case("one endless row", picture(png(2**31 - 1, 1)), "has more than 89,478,485 pixels", REPLACE),
    Case("a comment that grows", picture(text_bomb(), "train/cats/9.png"), "train/cats/9.png is damaged", REPLACE),
    Case("many of them", lambda folder: [picture(b"", f"train/cats/{n}.bmp")(folder) for n in range(5)], "and 2 more", REPLACE),
    Case("a link to nowhere", linked("train/cats/9.jpg", "gone.jpg"), "No such file or directory", REPLACE),
    Case("a link to itself", linked("train/cats/9.jpg", "9.jpg"), "Too many levels of symbolic links", REPLACE),
    Case("a link to an endless file", linked("train/cats/9.jpg", "/dev/zero"), "is no ordinary file", REPLACE),
    Case("a pipe", pipe, "is no ordinary file", REPLACE),
]  # fmt: skip

CASES = [*LAYOUT, *PICTURES]
