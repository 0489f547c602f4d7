"""The forms in which well-known data sets come: each reader yields the pictures of its files, split by split.

A reader takes the downloaded files in the order of `worker.data.named`, and gives a picture as split, class and either
the bytes of its file or its pixels. Nothing is unpacked to the disk and nothing is unpickled.
"""

import gzip
import itertools
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from orchestrator import failpoints

TRAIN, VALIDATION = "train", "validation"

Pixels = npt.NDArray[np.uint8]
#: Split, class, and a file's bytes or pixels: uint8 of shape (height, width) or (height, width, 3).
Picture = tuple[str, str, bytes | Pixels]
Reader = Callable[[Sequence[Path]], Iterator[Picture]]

_CIFAR_BYTES = 3 * 32 * 32
#: MATLAB's number types in files of its level 5: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
_MATLAB = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_MATLAB_HEADER, _MATLAB_MATRIX, _MATLAB_PACKED = 128, 14, 15


def idx(classes: Sequence[str]) -> Reader:
    """Return the reader of MNIST's form: pictures and labels of train, then of test, each a gzipped array."""

    def read(files: Sequence[Path]) -> Iterator[Picture]:
        for split, (pictures, labels) in ((TRAIN, files[:2]), (VALIDATION, files[2:])):
            for pixels, label in zip(_idx(pictures), _idx(labels), strict=True):
                yield split, classes[label], pixels

    return read


def cifar(*, names: str, train: str, test: str, label: int, labels: int) -> Reader:
    """Return the reader of CIFAR's binary form: `labels` bytes, of which the one at `label` counts, then the planes."""

    def read(files: Sequence[Path]) -> Iterator[Picture]:
        content = dict(_members(files[0]))
        classes = next(data for name, data in content.items() if name.endswith(names)).decode("ascii").split()
        for split, part in ((TRAIN, train), (VALIDATION, test)):
            for _, data in sorted(item for item in content.items() if PurePosixPath(item[0]).match(part)):
                for record in np.frombuffer(data, np.uint8).reshape(-1, labels + _CIFAR_BYTES):
                    yield split, classes[record[label]], record[labels:].reshape(3, 32, 32).transpose(1, 2, 0)

    return read


def svhn(files: Sequence[Path]) -> Iterator[Picture]:
    """Read Street View House Numbers, whose label 10 is the digit 0: train, then test."""
    for split, file in zip((TRAIN, VALIDATION), files, strict=True):
        found = _matlab(file)
        for pixels, label in zip(np.moveaxis(found["X"], 3, 0), found["y"].flatten(), strict=True):
            yield split, str(int(label) % 10), pixels


def flowers(classes: Sequence[str]) -> Reader:
    """Return the reader of the 102 flowers: pictures, labels, and the numbers of the splits; its test is left out."""

    def read(files: Sequence[Path]) -> Iterator[Picture]:
        labels, splits = _matlab(files[1])["labels"].flatten(), _matlab(files[2])
        places = {
            f"image_{int(number):05}": (split, classes[int(labels[int(number) - 1]) - 1])
            for split, name in ((TRAIN, "trnid"), (VALIDATION, "valid"))
            for number in splits[name].flatten()
        }
        yield from _placed(files[0], places, name=lambda path: path.stem)

    return read


def pets(files: Sequence[Path]) -> Iterator[Picture]:
    """Read the Oxford-IIIT pets: pictures, and the annotations that name the breed of each; trainval, then test."""
    lists = {PurePosixPath(name).name: data for name, data in _members(files[1]) if name.endswith(".txt")}
    places = {}
    for split, name in ((TRAIN, "trainval.txt"), (VALIDATION, "test.txt")):
        for line in lists[name].decode("ascii").splitlines():
            picture = line.split()[0]
            places[picture] = split, picture.rpartition("_")[0].replace("_", " ").title()
    yield from _placed(files[0], places, name=lambda path: path.stem)


def food(files: Sequence[Path]) -> Iterator[Picture]:
    """Read Food-101: its lists, then the pictures that they name."""
    lists = {PurePosixPath(name).name: data for name, data in _members(files[0], wanted="meta/*.json")}
    places = {
        picture: (split, name)
        for split, part in ((TRAIN, "train.json"), (VALIDATION, "test.json"))
        for name, pictures in json.loads(lists[part]).items()
        for picture in pictures
    }
    yield from _placed(files[0], places, name=lambda path: f"{path.parent.name}/{path.stem}")


def imagenette(classes: Mapping[str, str]) -> Reader:
    """Return the reader of Imagenette: folders train and val, classes by their WordNet numbers."""

    def read(files: Sequence[Path]) -> Iterator[Picture]:
        for name, data in _members(files[0], wanted="*.JPEG"):
            split, number = PurePosixPath(name).parts[-3:-1]
            yield {"train": TRAIN, "val": VALIDATION}[split], classes[number], data

    return read


def _placed(
    archive: Path, places: Mapping[str, tuple[str, str]], *, name: Callable[[PurePosixPath], str]
) -> Iterator[Picture]:
    for path, data in _members(archive, wanted="*.jpg"):
        if (place := places.get(name(PurePosixPath(path)))) is not None:
            yield (*place, data)


def _members(archive: Path, *, wanted: str = "*") -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the ordinary files in a packed tar archive whose names are like `wanted`."""
    with _opened(archive) as raw, tarfile.open(fileobj=raw, mode="r|gz") as file:
        for member in file:
            name = PurePosixPath(member.name)
            hidden = name.name.startswith(".")  # as macOS leaves them
            if member.isfile() and not hidden and name.match(wanted) and (content := file.extractfile(member)):
                yield member.name, content.read()


def _opened(path: Path) -> BinaryIO:
    failpoints.reach("named.read")
    return path.open("rb")


def _idx(path: Path) -> npt.NDArray[np.uint8]:
    with _opened(path) as raw, gzip.open(raw) as file:
        zero, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if (zero, kind) != (0, 8):
            raise ValueError("no array of bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def _matlab(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the numeric arrays of a MATLAB file by their names."""
    with _opened(path) as file:
        whole = file.read()
    found = {}
    for kind, data in _elements(whole[_MATLAB_HEADER:]):
        unpacked = _elements(zlib.decompress(data)) if kind == _MATLAB_PACKED else iter([(kind, data)])
        for inner, content in unpacked:
            if inner == _MATLAB_MATRIX:
                _, (_, shape), (_, name), (number, values) = itertools.islice(_elements(content), 4)
                array = np.frombuffer(values, _MATLAB[number])
                found[name.decode("ascii")] = array.reshape(np.frombuffer(shape, "<i4"), order="F")
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of the elements that follow one another, each at a multiple of eight bytes."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # four bytes at most lie in the tag itself
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
        else:
            yield kind, data[at + 8 : at + 8 + size]
            at += 8 + size + (-size % 8 if kind != _MATLAB_PACKED else 0)
