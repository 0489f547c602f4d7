"""The decoded cache: no bit of a batch changes, nothing is decoded twice, and whatever breaks is decoded as before."""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from orchestrator import config, failpoints
from orchestrator.core import specs
from tests.support import pictures
from tests.support.waiting import until
from worker import protocol
from worker.data import cache, crews, decoded, loader, pixels, supply

TRAIN, VAL = 8, 4


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return config.Settings(home=tmp_path / "home")


@pytest.fixture
def info(tmp_path: Path, settings: config.Settings) -> protocol.DatasetInfo:
    """Return a set of 8 training pictures and 4 for validation, JPEGs and PNGs of odd sides."""
    folder = pictures.image_folder(tmp_path / "pets", splits={"train": 3, "validation": 1})
    for number, (split, name) in enumerate((s, c) for s in ("train", "validation") for c in ("cats", "dogs")):
        picture = pictures.noise(number, size=(61 + number, 43))
        (folder / split / name / "odd.jpg").write_bytes(pictures.encoded(picture, "JPEG"))
    spec = specs.parse({"data": str(folder)})
    return supply.ensure_data(spec, expected_hash=None, settings=settings, report=lambda _: None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the files of pictures that have been opened, as a list that grows."""
    names: list[str] = []
    real = pixels.read

    def counting(path: Path) -> pixels.Pixels:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(pixels, "read", counting)
    return names


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return how to arm a failpoint."""
    folder = tmp_path / "points"
    folder.mkdir()
    monkeypatch.setattr(failpoints, "folder", lambda: folder)

    def arm(place: str, action: str) -> None:
        (folder / place).write_text(action)

    return arm


def batches_of(info: protocol.DatasetInfo, settings: config.Settings | None, **fields: Any) -> loader.Loader:
    recipe = {"network": "densenet_tiny", "image_size": 16, "batch_size": 3, **fields}
    return loader.Loader(info, specs.parse(recipe), settings=settings)


def seen(batches: loader.Loader, epochs: int = 2) -> list[str]:
    """Return the hashes of all batches of some epochs with their validation."""
    return [
        hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
        for epoch in range(epochs)
        for part in (batches.train(epoch), batches.validation())
        for images, labels in part
    ]


def job(info: protocol.DatasetInfo, settings: config.Settings | None, **fields: Any) -> list[str]:
    with batches_of(info, settings, **fields) as batches:
        return seen(batches)


def files(settings: config.Settings) -> tuple[Path, Path]:
    """Return index and pixels of the one set."""
    (folder,) = (settings.data_dir / decoded.FOLDER).iterdir()
    (stored,) = folder.glob("*.pixels")
    return folder / "index", stored


@pytest.mark.parametrize("fields", [{}, {"pipeline": "fast"}, {"crop_padding": 3}, {"randaugment": 2}])
def test_no_bit_of_any_batch_depends_on_the_cache(
    fields: dict[str, Any], info: protocol.DatasetInfo, settings: config.Settings
) -> None:
    plain = job(info, None, **fields)
    assert job(info, settings, **fields) == plain  # which fills it in its first epoch, and reads it in its second
    assert job(info, settings, **fields) == plain  # which finds it


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_threads_and_processes_fill_and_read_it(
    kind: crews.Kind, info: protocol.DatasetInfo, settings: config.Settings, opened: list[str]
) -> None:
    plain = job(info, None)
    with batches_of(info, settings) as batches:
        batches._crew = crews.Crew(kind, 2, pin_memory=False)
        assert seen(batches) == plain
    opened.clear()
    assert job(info, settings) == plain
    assert opened == []


def test_no_picture_is_decoded_twice(info: protocol.DatasetInfo, settings: config.Settings, opened: list[str]) -> None:
    job(info, settings)
    assert len(opened) == TRAIN + VAL
    job(info, settings, pipeline="fast", image_size=20)
    assert len(opened) == TRAIN + VAL


def flipped(settings: config.Settings) -> None:
    _, stored = files(settings)
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)


def cut(settings: config.Settings) -> None:
    _, stored = files(settings)
    os.truncate(stored, stored.stat().st_size - 1)


def index_damaged(settings: config.Settings) -> None:
    index, _ = files(settings)
    content = bytearray(index.read_bytes())
    content[100] ^= 1
    index.write_bytes(content)


def index_gone(settings: config.Settings) -> None:
    files(settings)[0].unlink()


def pixels_gone(settings: config.Settings) -> None:
    files(settings)[1].unlink()


@pytest.mark.parametrize(
    ("damage", "again"),
    [(flipped, 2), (cut, 12), (index_damaged, 12), (index_gone, 12), (pixels_gone, 12)],
)
def test_what_is_damaged_is_noticed_and_made_anew(
    damage: Callable[[config.Settings], None],
    again: int,
    info: protocol.DatasetInfo,
    settings: config.Settings,
    opened: list[str],
) -> None:
    plain = job(info, settings)
    damage(settings)
    opened.clear()
    assert job(info, settings) == plain
    assert len(opened) == again
    assert job(info, settings) == plain
    assert len(opened) == again


def test_what_is_cut_short_during_a_training_is_decoded(info: protocol.DatasetInfo, settings: config.Settings) -> None:
    plain = job(info, settings)
    with batches_of(info, settings) as batches:
        seen(batches, epochs=1)
        os.truncate(files(settings)[1], 5)
        assert seen(batches) == plain


def test_the_tail_of_a_crash_is_written_over(
    info: protocol.DatasetInfo, settings: config.Settings, armed: Callable[[str, str], None], opened: list[str]
) -> None:
    armed("decoded.rename", "raise")  # as if it died there: no index names what was written
    with pytest.raises(RuntimeError, match=r"decoded\.rename"):
        job(info, settings)
    opened.clear()
    job(info, settings)
    assert len(opened) == TRAIN + VAL
    _, stored = files(settings)
    assert stored.stat().st_size == sum(pixels_of(info))


def pixels_of(info: protocol.DatasetInfo) -> Iterator[int]:
    for path in Path(info.path).rglob("*.*"):
        yield pixels.read(path).nbytes


@pytest.mark.parametrize(
    "place",
    [
        *("pixels.lock", "pixels.look", "pixels.mkdir", "pixels.open", "pixels.write", "pixels.fsync"),
        *("decoded.open", "decoded.write", "decoded.fsync", "decoded.rename", "decoded.folder"),
    ],
)
def test_a_full_disk_means_no_cache_and_one_warning(
    place: str, info: protocol.DatasetInfo, settings: config.Settings, armed: Callable[[str, str], None]
) -> None:
    plain = job(info, None)
    armed(place, "enospc\nenospc")
    with structlog.testing.capture_logs() as logs:
        assert job(info, settings) == plain
    assert [entry["event"] for entry in logs] == ["Decoded pictures are not kept."]
    stored = list((settings.data_dir / decoded.FOLDER).rglob("*.pixels"))
    assert sum(file.stat().st_size for file in stored) == 0  # what nobody can find is given back


def test_what_is_written_just_when_all_is_given_up_is_given_back_too(
    info: protocol.DatasetInfo, settings: config.Settings, armed: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Its pixels may be cut off: whoever took them for whole would train on a black picture."""
    made = np.full((3, 2, 3), 7, np.uint8)
    one = decoded.of(info, settings)
    assert one is not None
    with closing(one):
        one.refresh()
        one.picture(0, lambda: made)
        armed("pixels.write", "hold")
        adding = threading.Thread(target=one.picture, args=(1, lambda: made), daemon=True)
        adding.start()
        until((tmp_path / "points" / "pixels.write.fired").exists)
        armed("pixels.fsync", "enospc")
        one.keep()
        until(lambda: isinstance(one.picture(0, lambda: made), np.ndarray))  # it is given up
        (tmp_path / "points" / "pixels.write.go").touch()
        adding.join()
        assert files(settings)[1].stat().st_size == 0
        assert isinstance(one.picture(1, lambda: made), np.ndarray)


def test_a_disk_that_cannot_be_read_means_decoding(
    info: protocol.DatasetInfo, settings: config.Settings, armed: Callable[[str, str], None], opened: list[str]
) -> None:
    plain = job(info, settings)
    opened.clear()
    armed("pixels.read", "eio")
    assert job(info, settings) == plain
    assert len(opened) == 2  # then, and in the next epoch, which adds it again


def test_zero_turns_it_off(info: protocol.DatasetInfo, tmp_path: Path) -> None:
    off = config.Settings(home=tmp_path / "home", decoded_max_bytes=0)
    assert job(info, off) == job(info, None)
    assert not (off.data_dir / decoded.FOLDER).exists()


def test_no_more_is_kept_than_fits(info: protocol.DatasetInfo, tmp_path: Path, opened: list[str]) -> None:
    small = config.Settings(home=tmp_path / "home", decoded_max_bytes=sum(pixels_of(info)) // 2)
    opened.clear()
    assert job(info, small) == job(info, None)
    assert 0 < files(small)[1].stat().st_size <= small.decoded_max_bytes
    opened.clear()
    job(info, small)
    first = len(opened)
    assert TRAIN + VAL > first // 2 > 0


def test_one_training_adds_and_another_one_reads(
    info: protocol.DatasetInfo, settings: config.Settings, opened: list[str]
) -> None:
    with batches_of(info, settings) as one, batches_of(info, settings) as other:
        plain = seen(one, epochs=1)
        one._cache.close()  # type: ignore[union-attr]  # it has one
        size = files(settings)[1].stat().st_size
        opened.clear()
        assert seen(other, epochs=1) == plain
    assert opened == []
    assert files(settings)[1].stat().st_size == size


def test_who_cannot_add_decodes(info: protocol.DatasetInfo, settings: config.Settings, opened: list[str]) -> None:
    with batches_of(info, settings) as one, batches_of(info, settings) as other:
        next(one.train(0))
        plain = job(info, None)
        opened.clear()
        assert seen(other) == plain
        assert len(opened) == 2 * (TRAIN + VAL)


def test_the_set_that_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sets = []
    for number in range(3):
        folder = pictures.image_folder(tmp_path / f"pets{number}", splits={"train": 2 + number, "validation": 1})
        spec, settings = specs.parse({"data": str(folder)}), config.Settings(home=home)
        sets.append(supply.ensure_data(spec, expected_hash=None, settings=settings, report=lambda _: None))
    taken = [sum(pixels_of(info)) for info in sets]
    room = max(10 * sets[2].bytes, taken[2]) + taken[1] + 5000
    for info, ago in zip(sets[:2], (200, 100), strict=True):
        job(info, settings)
        then = time.time() - ago
        (made,) = (settings.data_dir / decoded.FOLDER).glob(f"{info.hash[:32]}-*")
        os.utime(made, (then, then))
    job(sets[2], config.Settings(home=home, decoded_max_bytes=room))
    left = {path.name.partition("-")[0] for path in (settings.data_dir / decoded.FOLDER).iterdir()}
    assert left == {info.hash[:32] for info in sets[1:]}


def test_a_set_that_is_removed_takes_its_pixels_along(info: protocol.DatasetInfo, settings: config.Settings) -> None:
    job(info, settings)
    cache.Cache(settings.data_dir).remove(info.hash)
    assert list((settings.data_dir / decoded.FOLDER).iterdir()) == []


def test_who_reads_a_set_that_was_made_anew_does_not_add_to_it(
    info: protocol.DatasetInfo, settings: config.Settings
) -> None:
    """Where its own file was, it would find nothing but zeros: a black picture."""
    made = np.full((3, 2, 3), 7, np.uint8)

    def another() -> decoded.Decoded:
        found = decoded.of(info, settings)
        assert found is not None
        return found

    with closing(another()) as reader:
        with closing(another()) as adder:
            adder.refresh()
            adder.picture(0, lambda: made)
            adder.keep()
            assert adder._keeping is not None
            adder._keeping.result()
            reader.refresh()
            assert np.array_equal(reader.picture(0, lambda: made)[:, :], made)
        shutil.rmtree(files(settings)[0].parent)  # as for the sake of another set
        with closing(another()) as anew:
            anew.refresh()
            anew.picture(1, lambda: made)
        index = files(settings)[0].read_bytes()
        assert reader._open is not None
        os.close(reader._open[1])
        reader._open = None  # as in a process that is forked for the next pass
        reader.refresh()
        assert np.array_equal(reader.picture(0, lambda: made)[:, :], made)
    assert files(settings)[0].read_bytes() == index
