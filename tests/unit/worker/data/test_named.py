"""Data sets by name: torchvision's table, and tiny files in the same forms from a server on this machine."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets as theirs
from PIL import Image

from orchestrator import config, errors
from orchestrator.core import presets, specs
from tests.support import httpserver, pictures
from worker import protocol
from worker.data import named, sources, supply

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
JPEG = [pictures.encoded(pictures.noise(number), "JPEG") for number in range(8)]


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar(labels: list[tuple[int, ...]]) -> bytes:
    return b"".join(bytes(label) + PIXELS[n].transpose(2, 0, 1).tobytes() for n, label in enumerate(labels))


def idx(array: Any) -> bytes:
    values = np.asarray(array, np.uint8)
    return gzip.compress(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def matlab(**arrays: Any) -> bytes:
    """Return a MATLAB file of level 5, its arrays packed."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    whole = bytes(128)
    for name, given in arrays.items():
        values = np.atleast_2d(np.asarray(given, np.uint8))
        word = name.encode()
        short = struct.pack("<HH4s", 1, len(word), word) if len(word) <= 4 else element(1, word)
        content = element(6, bytes(8)) + element(5, np.array(values.shape, "<i4").tobytes()) + short
        packed = zlib.compress(element(14, content + element(2, values.tobytes(order="F"))))
        whole += struct.pack("<II", 15, len(packed)) + packed
    return whole


FLOWERS = {f"jpg/image_{number:05}.jpg": JPEG[number - 1] for number in range(1, 8)}
PETS = ("Abyssinian_1", "great_dane_1", "great_dane_2", "Abyssinian_9", "great_dane_9")
MEALS = ["pie/1", "pie/2", "cake/1", "pie/3", "cake/4"]
THINGS = ("train/n01440764/a", "train/n03028079/a", "train/n03028079/b", "val/n01440764/c", "val/n03028079/c")
FORMS: dict[str, list[bytes]] = {
    "CIFAR10": [
        tar(
            {
                "cifar-10-batches-bin/batches.meta.txt": b"airplane\nautomobile\n\n",
                "cifar-10-batches-bin/data_batch_1.bin": cifar([(0,), (1,)]),
                "cifar-10-batches-bin/data_batch_2.bin": cifar([(1,)]),
                "cifar-10-batches-bin/test_batch.bin": cifar([(1,), (0,)]),
                "cifar-10-batches-bin/readme.html": b"nothing",
            }
        )
    ],
    "CIFAR100": [
        tar(
            {
                "cifar-100-binary/coarse_label_names.txt": b"fruit\nfish\n",
                "cifar-100-binary/fine_label_names.txt": b"apple\naquarium_fish\n",
                "cifar-100-binary/train.bin": cifar([(1, 0), (0, 1), (1, 1)]),
                "cifar-100-binary/test.bin": cifar([(0, 1), (1, 0)]),
            }
        )
    ],
    "SVHN": [
        matlab(X=np.moveaxis(PIXELS[:3], 0, 3), y=[[10], [1], [1]]),
        matlab(X=np.moveaxis(PIXELS[:2], 0, 3), y=[[1], [10]]),
    ],
    "MNIST": [idx(PIXELS[:3, :28, :28, 0]), idx([0, 1, 1]), idx(PIXELS[:2, :28, :28, 0]), idx([1, 0])],
    "FashionMNIST": [idx(PIXELS[:3, :28, :28, 0]), idx([0, 1, 1]), idx(PIXELS[:2, :28, :28, 0]), idx([1, 0])],
    "Flowers102": [
        tar(FLOWERS),
        matlab(labels=[1, 2, 2, 1, 2, 1, 2]),
        matlab(trnid=[1, 2, 3], valid=[5, 4], tstid=[6]),
    ],
    "OxfordIIITPet": [
        tar(
            {
                **{f"images/{name}.jpg": JPEG[n] for n, name in enumerate(PETS)},
                "images/._Abyssinian_1.jpg": b"",
                "images/Abyssinian_100.mat": b"?",
            }
        ),
        tar(
            {
                "annotations/trainval.txt": b"Abyssinian_1 1 1 1\ngreat_dane_1 2 2 1\ngreat_dane_2 2 2 1\n",
                "annotations/test.txt": b"Abyssinian_9 1 1 1\ngreat_dane_9 2 2 1\n",
            }
        ),
    ],
    "Food101": [
        tar(
            {
                **{f"food-101/images/{name}.jpg": JPEG[n] for n, name in enumerate(MEALS)},
                "food-101/meta/train.json": json.dumps({"pie": MEALS[:2], "cake": MEALS[2:3]}).encode(),
                "food-101/meta/test.json": json.dumps({"pie": MEALS[3:4], "cake": MEALS[4:]}).encode(),
            }
        )
    ],
    "Imagenette": [tar({f"imagenette2/{name}.JPEG": JPEG[n] for n, name in enumerate(THINGS)})],
}

CLASSES = {
    "CIFAR10": ("airplane", "automobile"),
    "CIFAR100": ("apple", "aquarium_fish"),
    "SVHN": ("0", "1"),
    "MNIST": ("0", "1"),
    "FashionMNIST": ("T-shirt or top", "Trouser"),
    "Flowers102": ("hard-leaved pocket orchid", "pink primrose"),
    "OxfordIIITPet": ("Abyssinian", "Great Dane"),
    "Food101": ("cake", "pie"),
    "Imagenette": ("church", "tench"),
}


@pytest.fixture
def server() -> Iterator[httpserver.Server]:
    with httpserver.Server() as running:
        yield running


def mirror(name: str, server: httpserver.Server, monkeypatch: pytest.MonkeyPatch, *, md5: str | None = None) -> None:
    """Let the tiny files of a set be its files."""
    files = tuple(
        named.File(
            server.on(f"/{name}/{n}", httpserver.Reply(body=content)),
            md5 or hashlib.md5(content, usedforsecurity=False).hexdigest(),
        )
        for n, content in enumerate(FORMS[name])
    )
    monkeypatch.setitem(named.SETS, name, named.Known(files=files, read=named.SETS[name].read))


def fetched(name: str, home: Path, **fields: Any) -> protocol.DatasetInfo:
    spec = specs.parse({"data": f"torchvision:{name}", **fields})
    return supply.ensure_data(spec, expected_hash=None, settings=config.Settings(home=home), report=lambda _: None)


@pytest.mark.parametrize("name", named.SETS)
def test_every_form_becomes_an_image_folder(
    name: str, server: httpserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(name, server, monkeypatch)
    info = fetched(name, tmp_path)
    assert (info.classes, info.counts, info.source) == (CLASSES[name], {"train": 3, "val": 2}, f"torchvision:{name}")
    assert fetched(name, tmp_path) == info
    assert all(len(server.asked(f"/{name}/{number}")) == 1 for number in range(len(FORMS[name])))
    assert list((tmp_path / "data" / "archives").iterdir()) == []


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN"])
def test_pixels_are_those_of_the_files(
    name: str, server: httpserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(name, server, monkeypatch)
    path = min(Path(fetched(name, tmp_path).path, "train", CLASSES[name][0]).iterdir())
    assert np.array_equal(np.array(Image.open(path)), PIXELS[0])


def test_what_is_here_is_not_downloaded_again(
    server: httpserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror("MNIST", server, monkeypatch)
    known = named.SETS["MNIST"]
    broken = named.Known(files=known.files, read=lambda _: iter([("train", "0", b"no picture")]))
    monkeypatch.setitem(named.SETS, "MNIST", broken)
    with pytest.raises(errors.StageFailed):
        fetched("MNIST", tmp_path)
    monkeypatch.setitem(named.SETS, "MNIST", known)
    assert fetched("MNIST", tmp_path).counts == {"train": 3, "val": 2}
    assert len(server.asked("/MNIST/0")) == 1


def test_another_checksum_is_refused(
    server: httpserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror("MNIST", server, monkeypatch, md5="0" * 32)
    with pytest.raises(errors.StageFailed, match="is not the file") as caught:
        fetched("MNIST", tmp_path)
    assert "md5" in str(caught.value.why)


def test_files_of_another_form_are_named(
    server: httpserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMS, "MNIST", [b"no gzip"] * 4)
    mirror("MNIST", server, monkeypatch)
    with pytest.raises(errors.StageFailed, match="not in the form") as caught:
        fetched("MNIST", tmp_path)
    assert caught.value.reason == "bad_input"


def test_a_sha256_is_for_archives(tmp_path: Path) -> None:
    with pytest.raises(errors.StageFailed, match="has no sha256"):
        fetched("MNIST", tmp_path, data_sha256="0" * 64)


def test_the_nearest_known_name_is_named() -> None:
    with pytest.raises(errors.StageFailed, match="did you mean 'torchvision:CIFAR10'"):
        sources.parse("torchvision:CIFAR1O")


def test_the_table_is_torchvisions() -> None:
    assert set(named.SETS) == {name.partition(":")[2] for name in presets.DATA if ":" in name}
    mnist = [(file.url, file.md5) for file in named.SETS["MNIST"].files]
    assert mnist == [(f"{theirs.MNIST.mirrors[0]}{name}", md5) for name, md5 in theirs.MNIST.resources]
    fashion = [(file.url, file.md5) for file in named.SETS["FashionMNIST"].files]
    assert fashion == [(f"{theirs.FashionMNIST.mirrors[0]}{n}", md5) for n, md5 in theirs.FashionMNIST.resources]
    svhn = [(file.url, file.md5) for file in named.SETS["SVHN"].files]
    assert svhn == [(url, md5) for url, _, md5 in (theirs.SVHN.split_list[split] for split in ("train", "test"))]
    flowers = [(file.url, file.md5) for file in named.SETS["Flowers102"].files]
    prefix = theirs.Flowers102._download_url_prefix
    assert flowers == [(f"{prefix}{n}", md5) for n, md5 in theirs.Flowers102._file_dict.values()]
    assert named._FLOWERS.strip().replace("\n", " ").split(", ") == list(theirs.Flowers102.classes)
    pets = tuple((file.url, file.md5) for file in named.SETS["OxfordIIITPet"].files)
    assert pets == theirs.OxfordIIITPet._RESOURCES
    (food,) = named.SETS["Food101"].files
    assert (food.url, food.md5) == (theirs.Food101._URL, theirs.Food101._MD5)
    (imagenette,) = named.SETS["Imagenette"].files
    assert (imagenette.url, imagenette.md5) == theirs.Imagenette._ARCHIVES["full"]
    assert {number: words[0] for number, words in theirs.Imagenette._WNID_TO_CLASS.items()} == named._WORDNET
