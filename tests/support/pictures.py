"""Tiny ImageFolder data sets of real, random, seeded pictures, and single pictures of every kind."""

import io
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

#: One tint a class, so that a network can learn to tell them apart in a few steps.
_TINTS = ((255, 40, 40), (40, 40, 255), (40, 255, 40), (255, 255, 40), (40, 255, 255), (255, 40, 255))


def noise(seed: int, *, size: tuple[int, int] = (40, 32), tint: tuple[int, int, int] | None = None) -> Image.Image:
    """Return an RGB picture of coarse random blocks; `size` is (width, height)."""
    small = Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(8 * 8 * 3))  # noqa: S311 - pictures, no keys
    picture = small.resize(size, Image.Resampling.BILINEAR)
    return picture if tint is None else Image.blend(picture, Image.new("RGB", size, tint), 0.5)


def encoded(picture: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    """Return the bytes of a picture file; `kind` is Pillow's name of the format, `how` are its writer's options."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def members(
    *,
    classes: Iterable[str] = ("cats", "dogs"),
    splits: Mapping[str, int] | None = None,
    size: tuple[int, int] = (40, 32),
    seed: int = 0,
    top: str = "",
) -> dict[str, bytes]:
    """Return {relative path: file} of a data set with `splits[name]` pictures a class (train 6, validation 3).

    Every second picture is a PNG, the others are JPEGs; no two are alike. `top` is a folder around it all.
    """
    files: dict[str, bytes] = {}
    for split, count in (splits or {"train": 6, "validation": 3}).items():
        for label, name in enumerate(sorted(classes)):
            for index in range(count):
                extension, kind = ("png", "PNG") if index % 2 else ("jpg", "JPEG")
                picture = noise(
                    hash((seed, split == "train", label, index)), size=size, tint=_TINTS[label % len(_TINTS)]
                )
                files[f"{top}/{split}/{name}/{index}.{extension}".lstrip("/")] = encoded(picture, kind)
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write {relative path: bytes} below `folder` and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def image_folder(folder: Path, **options: object) -> Path:
    """Write a data set (the options are those of `members`) and return its folder."""
    return write(folder, members(**options))  # type: ignore[arg-type] # handed through as they are
