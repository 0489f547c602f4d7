"""ImageFolder data sets: found, checked picture by picture, and named by their content."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image
from torchvision import datasets

from tests.faults.corpus import sets
from tests.support import pictures
from tests.unit.worker.data.conftest import Fails
from worker.data import imagefolder


def admit(folder: Path) -> imagefolder.Contents:
    return imagefolder.admit(imagefolder.discover(folder), report=lambda _done: None)


def giant_png(side: int) -> bytes:
    """Return a PNG of a few bytes that claims so many pixels squared."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animated_gif_as_webp() -> bytes:
    buffer = io.BytesIO()
    frames = [pictures.noise(seed) for seed in range(3)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def sixteen_bit() -> bytes:
    return pictures.encoded(Image.frombytes("I;16", (8, 8), bytes(range(128))), "PNG")


@pytest.mark.parametrize("val", ["validation", "val", "test"])
@pytest.mark.parametrize("top", ["", "pets"])
def test_a_set_is_found_under_each_of_its_layouts(tmp_path: Path, val: str, top: str) -> None:
    pictures.image_folder(tmp_path, splits={"train": 3, val: 2}, top=top)
    layout = imagefolder.discover(tmp_path)
    assert layout.root == tmp_path / top
    assert layout.folders == {"train": "train", "val": val}
    assert layout.classes == ("cats", "dogs")
    assert [len(layout.pictures[split]) for split in ("train", "val")] == [6, 4]


def test_validation_comes_before_val_before_test(tmp_path: Path) -> None:
    pictures.image_folder(tmp_path, splits={"train": 1, "test": 1, "val": 1, "validation": 1})
    for expected in ("validation", "val", "test"):
        assert imagefolder.discover(tmp_path).folders["val"] == expected
        shutil.rmtree(tmp_path / expected)


def test_classes_and_pictures_are_those_of_torchvision_in_its_order(tmp_path: Path) -> None:
    pictures.image_folder(tmp_path, classes=("b", "B", "a10", "a9", "é"))
    (tmp_path / "train" / "b" / "notes.txt").write_text("not a picture")
    (tmp_path / "train" / "b" / "UPPER.JPEG").write_bytes(pictures.encoded(pictures.noise(1)))
    layout, theirs = imagefolder.discover(tmp_path), datasets.ImageFolder(str(tmp_path / "train"))
    assert list(layout.classes) == theirs.classes
    assert [(str(tmp_path / picture.path), picture.label) for picture in layout.pictures["train"]] == theirs.samples


def test_extensions_are_those_of_torchvision() -> None:
    assert imagefolder.EXTENSIONS == datasets.folder.IMG_EXTENSIONS


def test_what_begins_with_a_dot_is_no_part_of_a_set(tmp_path: Path) -> None:
    pictures.image_folder(tmp_path)
    before = imagefolder.discover(tmp_path)
    shutil.copytree(tmp_path / "train" / "cats", tmp_path / "train" / ".ipynb_checkpoints")
    shutil.copytree(tmp_path / "train" / "cats", tmp_path / "train" / "cats" / ".thumbnails")
    (tmp_path / "train" / "cats" / "._0.jpg").write_bytes(b"a Mac's resource fork")
    assert imagefolder.discover(tmp_path) == before


def spoil_no_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def spoil_no_validation(folder: Path) -> None:
    shutil.rmtree(folder / "validation")


def spoil_one_class(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "dogs")


def spoil_flat(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    (folder / "train" / "1.jpg").write_bytes(b"")


def spoil_empty_class(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "dogs")
    (folder / "train" / "dogs").mkdir()


def spoil_empty_in_validation(folder: Path) -> None:
    shutil.rmtree(folder / "validation" / "cats")
    (folder / "validation" / "cats").mkdir()


def spoil_missing_class(folder: Path) -> None:
    shutil.rmtree(folder / "validation" / "cats")


def spoil_extra_class(folder: Path) -> None:
    (folder / "validation" / "mice").mkdir()


def spoil_no_pictures(folder: Path) -> None:
    for path in folder.glob("train/*/*"):
        path.rename(path.with_suffix(".txt"))


def spoil_everything(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_no_train, "has no train folder"),
        (spoil_everything, "There are no folders in it"),
        (spoil_no_validation, "has no validation split"),
        (spoil_one_class, "one class only: cats"),
        (spoil_flat, "has no class folders"),
        (spoil_empty_class, "no pictures of dogs in train"),
        (spoil_empty_in_validation, "no pictures of cats in validation"),
        (spoil_missing_class, "Only train has cats"),
        (spoil_extra_class, "Only validation has mice"),
        (spoil_no_pictures, "no pictures in train"),
    ],
)
def test_a_set_that_cannot_be_trained_on_says_why(
    tmp_path: Path, spoil: Callable[[Path], None], words: str, fails: Fails
) -> None:
    folder = pictures.image_folder(tmp_path / "set")
    spoil(folder)
    with fails(words):
        imagefolder.discover(folder)


def test_a_class_whose_name_is_no_utf8_is_refused(tmp_path: Path, fails: Fails) -> None:
    folder = pictures.image_folder(tmp_path / "set")
    for split in ("train", "validation"):
        (folder / split / "cats").rename(folder / split / os.fsdecode(b"k\xe4tzchen"))
    with fails(r"A class has a name that is no UTF-8: k\xe4tzchen."):
        imagefolder.discover(folder)


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path: Path, fails: Fails) -> None:
    pictures.image_folder(tmp_path / os.fsdecode(b"k\xe4tzchen"))
    with fails(r"The folder of the data set has a name that is no UTF-8: k\xe4tzchen."):
        imagefolder.discover(tmp_path)


def test_a_damaged_picture_whose_name_is_no_utf8_is_named(tmp_path: Path, fails: Fails) -> None:
    pictures.image_folder(tmp_path)
    (tmp_path / "train" / "cats" / os.fsdecode(b"\xe4.jpg")).write_bytes(b"")
    with fails(r"train/cats/\xe4.jpg is empty"):
        admit(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "train/cats/9.jpg is empty"),
        (b"<html>not found</html>", "train/cats/9.jpg is not a picture"),
        (pictures.encoded(pictures.noise(0))[:300], "train/cats/9.jpg is damaged"),
        (pictures.encoded(pictures.noise(0, size=(200, 200)))[:-900], "train/cats/9.jpg is damaged"),
        (pictures.encoded(pictures.noise(0, size=(200, 200)), "PNG")[:-500], "train/cats/9.jpg is damaged"),
        (giant_png(10_000), "train/cats/9.jpg has more than"),  # Pillow would only warn
        (giant_png(60_000), "train/cats/9.jpg has more than"),
    ],
    ids=["zero bytes", "html", "cut in the header", "cut jpeg", "cut png", "giant", "more than giant"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path, data: bytes, words: str, fails: Fails) -> None:
    pictures.image_folder(tmp_path)
    (tmp_path / "train" / "cats" / "9.jpg").write_bytes(data)
    with fails(words):
        admit(tmp_path)


def test_a_link_to_nowhere_is_named(tmp_path: Path, fails: Fails) -> None:
    pictures.image_folder(tmp_path)
    (tmp_path / "train" / "cats" / "9.jpg").symlink_to(tmp_path / "gone.jpg")
    with fails("train/cats/9.jpg cannot be read"):
        admit(tmp_path)


def test_of_many_bad_pictures_three_are_named_and_all_are_counted(tmp_path: Path, fails: Fails) -> None:
    pictures.image_folder(tmp_path)
    for index in range(5):
        (tmp_path / "validation" / "dogs" / f"bad{index}.png").write_bytes(b"")
    with fails("bad2.png is empty, and 2 more. 5 of 23 pictures"):
        admit(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        pictures.encoded(pictures.noise(0).convert("CMYK")),
        pictures.encoded(pictures.noise(0).convert("P"), "PNG"),
        pictures.encoded(pictures.noise(0).convert("L"), "PNG"),
        pictures.encoded(pictures.noise(0).convert("RGBA"), "PNG"),
        pictures.encoded(pictures.noise(0).convert("1"), "PNG"),
        sixteen_bit(),
        animated_gif_as_webp(),
        pictures.encoded(pictures.noise(0), "TIFF"),
        pictures.encoded(pictures.noise(0), "BMP"),
    ],
    ids=["cmyk", "palette", "grey", "alpha", "1 bit", "16 bit", "animated", "tiff", "bmp"],
)
def test_unusual_pictures_are_taken(tmp_path: Path, data: bytes) -> None:
    pictures.image_folder(tmp_path)
    (tmp_path / "train" / "cats" / "9.png").write_bytes(data)
    assert admit(tmp_path).bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.*"))


def test_the_hash_is_of_names_and_contents_alone(tmp_path: Path) -> None:
    first = pictures.image_folder(tmp_path / "first")
    second = pictures.image_folder(tmp_path / "second", top="pets")
    assert admit(first).hash == admit(second).hash
    (first / "train" / "cats" / "0.jpg").rename(first / "train" / "cats" / "00.jpg")
    assert admit(first).hash != admit(second).hash


def test_pictures_in_both_splits_are_counted(tmp_path: Path) -> None:
    pictures.image_folder(tmp_path)
    assert admit(tmp_path).shared == 0
    shutil.copy(tmp_path / "train" / "cats" / "0.jpg", tmp_path / "validation" / "cats" / "copy.jpg")
    assert admit(tmp_path).shared == 1


def test_any_change_shows_in_the_listing(tmp_path: Path) -> None:
    pictures.image_folder(tmp_path)
    seen = {imagefolder.listing(imagefolder.discover(tmp_path))}
    picture = tmp_path / "train" / "cats" / "0.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")
    seen.add(imagefolder.listing(imagefolder.discover(tmp_path)))
    picture.rename(picture.with_name("1.jpeg"))
    seen.add(imagefolder.listing(imagefolder.discover(tmp_path)))
    picture.with_name("1.jpeg").unlink()
    seen.add(imagefolder.listing(imagefolder.discover(tmp_path)))
    assert len(seen) == 4


def test_no_decoder_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    """Pillow has Ghostscript draw PostScript, whatever the file's name says."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    pictures.image_folder(tmp_path / "set")
    (tmp_path / "set" / "train" / "cats" / "9.jpg").write_bytes(sets.EPS)
    with fails("train/cats/9.jpg is not a picture"):
        admit(tmp_path / "set")
    assert not (tmp_path / "started").exists()
