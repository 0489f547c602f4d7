"""Data sets in ImageFolder layout: finding splits, classes and pictures, and admitting every single picture."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from orchestrator import failpoints
from orchestrator.core import jobs
from worker.refusals import refused

#: What is wrong with the host and not with a picture: another try, or another host, may read it.
_OF_THE_HOST = frozenset({errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})

#: torchvision's IMG_EXTENSIONS, which cannot be imported here without torch; a test holds them equal.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: Pillow's decoders that are used, whatever a file's name says: some of the others start programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
TRAIN = "train"
#: Folder names of the validation split, the first that exists counts.
VALIDATION = ("validation", "val", "test")
#: Pictures with more pixels are refused before they are decoded: a few bytes can claim terabytes.
MAX_PIXELS = 89_478_485  # Pillow's own line between a large picture and a decompression bomb

_NAMED_AT_MOST = 3


class Picture(NamedTuple):
    """One picture; a tuple, since large sets have a million of them."""

    path: str  #: POSIX, below the set's root
    label: int  #: index of its class


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set as its folders show it; no picture has been opened yet."""

    root: Path  #: the folder that holds the splits
    folders: dict[jobs.Split, str]  #: folder name of each split
    classes: tuple[str, ...]
    pictures: dict[jobs.Split, tuple[Picture, ...]]

    def all(self) -> Iterator[Picture]:
        """Yield the pictures of both splits."""
        for split in self.pictures.values():
            yield from split


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What reading every picture gave."""

    hash: str  #: sha256 over the sorted (relative path, sha256 of the file)
    bytes: int
    shared: int  #: pictures of the validation split whose very bytes are in the train split too


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Pictures of both splits with the very same bytes; paths below the set's root."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What reading every picture gave, whether they can all be trained on or not."""

    digests: dict[str, str]  #: sha256 of each file by its path
    bytes: int
    faults: tuple[str, ...]  #: each names a picture

    @property
    def hash(self) -> str:
        """The content hash of the set."""
        return _content_hash(self.digests)

    def shared(self, layout: Layout) -> list[Shared]:
        """Return what both splits have, in the order of the train split."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for picture in layout.pictures["train"]:
            found.setdefault(self.digests[picture.path], ([], []))[0].append(picture.path)
        for picture in layout.pictures["val"]:
            if (digest := self.digests[picture.path]) in found:
                found[digest][1].append(picture.path)
        return [Shared(train=tuple(train), val=tuple(val)) for train, val in found.values() if val]


def discover(folder: Path) -> Layout:
    """Return the layout of the data set in `folder`, or in the one folder in it.

    Classes are the folders of a split, sorted as torchvision's ImageFolder sorts them; what begins with a dot is no
    part of a set.

    Raises:
        StageFailed: bad_input, naming what is missing.

    """
    root = _root(folder)
    _check_name(root.name, what="The folder of the data set")
    folders = {"train": TRAIN, "val": _validation_folder(root)}
    classes = {split: tuple(_folders(root / name)) for split, name in folders.items()}
    for name in {*classes["train"], *classes["val"]}:
        _check_name(name, what="A class")
    _check_classes(classes["train"], classes["val"], folders["val"])
    layout = Layout(
        root=root,
        folders={"train": folders["train"], "val": folders["val"]},
        classes=classes["train"],
        pictures={
            "train": tuple(_pictures(root, folders["train"], classes["train"])),
            "val": tuple(_pictures(root, folders["val"], classes["train"])),
        },
    )
    _check_filled(layout)
    return layout


def admit(layout: Layout, *, report: Callable[[int], None]) -> Contents:
    """Decode and hash every picture once; `report` gets the number done, from this thread.

    Raises:
        StageFailed: bad_input, naming the first pictures that cannot be trained on.

    """
    examined = examine(layout, report=report)
    faults = examined.faults
    if faults:
        more = f", and {len(faults) - _NAMED_AT_MOST} more" if len(faults) > _NAMED_AT_MOST else ""
        raise refused(
            "; ".join(faults[:_NAMED_AT_MOST]) + more + ".",
            why=f"{len(faults)} of {len(examined.digests)} pictures cannot be decoded.",
            hint="Remove or replace them, then submit again.",
        )
    return Contents(
        hash=examined.hash,
        bytes=examined.bytes,
        shared=sum(len(shared.val) for shared in examined.shared(layout)),
    )


def examine(layout: Layout, *, report: Callable[[int], None]) -> Examined:
    """Decode and hash every picture once, and refuse none; `report` gets the number done, from this thread."""
    pictures = list(layout.all())
    digests: dict[str, str] = {}
    total = 0
    faults: list[str] = []
    # Pillow and hashlib leave the interpreter lock while they work, so threads use every core.
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        read = pool.map(lambda picture: _read(layout.root, picture.path), pictures)
        for done, (picture, (digest, size, fault)) in enumerate(zip(pictures, read, strict=True), 1):
            digests[picture.path] = digest
            total += size
            if fault is not None:
                faults.append(fault)
            report(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return Examined(digests=digests, bytes=total, faults=tuple(faults))


def listing(layout: Layout) -> str:
    """Return a digest of every picture's path, size and time of change: cheap, and different after any edit."""
    digest = hashlib.sha256()
    for path in sorted(picture.path for picture in layout.all()):
        try:
            status = os.stat(f"{layout.root}/{path}")  # noqa: PTH116 - a Path for each of a million pictures takes seconds
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:
            state = "gone"
        digest.update(f"{path}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _root(folder: Path) -> Path:
    if (folder / TRAIN).is_dir():
        return folder
    inside = _folders(folder)
    if len(inside) == 1 and (folder / inside[0] / TRAIN).is_dir():
        return folder / inside[0]
    raise refused(
        "The data set has no train folder.",
        why=f"At its top are {_named(inside)}." if inside else "There are no folders in it.",
        hint="Lay it out as train/CLASS/picture.jpg and validation/CLASS/picture.jpg.",
    )


def _validation_folder(root: Path) -> str:
    for name in VALIDATION:
        if (root / name).is_dir():
            return name
    raise refused(
        "The data set has no validation split.",
        why=f"Beside train there is no folder {', '.join(VALIDATION[:-1])} or {VALIDATION[-1]}.",
        hint="Put a share of the pictures of every class into validation/CLASS/.",
    )


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
        )


def _pictures(root: Path, split: str, classes: Sequence[str]) -> Iterator[Picture]:
    start = len(str(root)) + 1
    for label, name in enumerate(classes):
        # Links to folders are not followed below a class: they can lead in a circle.
        for folder, inside, files in os.walk(root / split / name):
            inside[:] = sorted(child for child in inside if not child.startswith("."))
            for file in sorted(files):
                if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                    yield Picture(f"{folder[start:]}/{file}", label)


def _check_name(name: str, *, what: str) -> None:
    """Refuse a name that no report could carry; of single pictures it may be whatever the disk takes."""
    if (shown := _shown(name)) != name:
        raise refused(
            f"{what} has a name that is no UTF-8: {shown}.",
            why="It cannot be written into reports and databases as it is.",
            hint="Rename the folder.",
        )


def _shown(name: str) -> str:
    """Return a name from the disk as text, the bytes of it that are no UTF-8 as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _check_classes(train: Sequence[str], val: Sequence[str], val_folder: str) -> None:
    if not train:
        raise refused(
            "The train split has no class folders.",
            why="A class is a folder of pictures below train.",
            hint="Lay it out as train/CLASS/picture.jpg.",
        )
    if len(train) == 1:
        raise refused(
            f"The data set has one class only: {train[0]}.",
            why="A network learns to tell classes apart; it needs two.",
            hint="Add a folder of pictures for each further class.",
        )
    if list(train) != list(val):
        missing, extra = sorted(set(train) - set(val)), sorted(set(val) - set(train))
        sides = [f"only train has {_named(missing)}"] * bool(missing)
        sides += [f"only {val_folder} has {_named(extra)}"] * bool(extra)
        said = "; ".join(sides)
        raise refused(
            f"train and {val_folder} have different classes.",
            why=said[0].upper() + said[1:] + ".",
            hint="Give both splits the same class folders.",
        )


def _check_filled(layout: Layout) -> None:
    for split, pictures in layout.pictures.items():
        if not pictures:
            raise refused(
                f"There are no pictures in {layout.folders[split]}.",
                why="None of its files ends in " + ", ".join(EXTENSIONS) + ".",
                hint="Convert the pictures to one of these formats.",
            )
        filled = {picture.label for picture in pictures}
        empty = [name for label, name in enumerate(layout.classes) if label not in filled]
        if empty:
            raise refused(
                f"There are no pictures of {_named(empty)} in {layout.folders[split]}.",
                why="A class without pictures can be neither learnt nor measured.",
                hint="Add pictures to the folder or remove it from both splits.",
            )


def _read(root: Path, path: str) -> tuple[str, int, str | None]:
    """Return a picture's digest, its bytes and what is wrong with it, if anything is."""
    digest, size = "", 0
    try:
        failpoints.reach("picture.admit")
        if not stat.S_ISREG((root / path).stat().st_mode):  # by a link, such as to /dev/zero
            return digest, size, f"{_shown(path)} is no ordinary file"
        with (root / path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            fault = _fault(file) if size else "is empty"
    except OSError as error:
        if error.errno in _OF_THE_HOST:
            raise
        fault = f"cannot be read ({error.strerror})"
    return digest, size, f"{_shown(path)} {fault}" if fault else None


def _fault(file: BinaryIO) -> str | None:
    giant = f"has more than {MAX_PIXELS:,} pixels"
    try:
        with Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return giant
            picture.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return giant
    except UnidentifiedImageError:
        return "is not a picture"
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        if isinstance(error, OSError) and error.errno in _OF_THE_HOST:
            raise
        return f"is damaged ({str(error) or type(error).__name__})"
    return None


def _content_hash(digests: dict[str, str]) -> str:
    whole = hashlib.sha256()
    for path, digest in sorted(digests.items()):
        whole.update(f"{path}\0{digest}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _named(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - _NAMED_AT_MOST} more" if len(known) > _NAMED_AT_MOST else ""
    return ", ".join(known[:_NAMED_AT_MOST]) + more
