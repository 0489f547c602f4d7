"""Zip archives that are unpacked, and what stays of a damaged one. What is refused stands in tests/faults/corpus."""

import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import errors
from orchestrator.core import states
from tests.support import archives
from tests.unit.worker.data.conftest import Fails
from worker.data import archive, zipcheck

LIMITS = zipcheck.Limits(max_bytes=10_000_000, max_members=50, max_depth=6)
Entry = archives.Entry
GOOD = Entry(name="train/cats/1.jpg")
PLAIN = archives.zipped({"train/cats/1.jpg": b"picture" * 100, "train/dogs/1.jpg": b"other"})


def extract(data: bytes, folder: Path, limits: zipcheck.Limits = LIMITS) -> Path:
    (folder / "box").mkdir()
    (folder / "set.zip").write_bytes(data)
    archive.extract(folder / "set.zip", into=folder / "box" / "new", limits=limits, report=lambda *_: None)
    return folder / "box" / "new"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_good_archive_is_unpacked(tmp_path: Path) -> None:
    folder = extract(PLAIN, tmp_path)
    assert files(folder) == ["train/cats/1.jpg", "train/dogs/1.jpg"]
    assert (folder / "train/cats/1.jpg").read_bytes() == b"picture" * 100


def test_files_are_not_executable_whatever_the_archive_says(tmp_path: Path) -> None:
    folder = extract(archives.raw([Entry(name="run.sh", mode=0o104777)]), tmp_path)
    assert (folder / "run.sh").stat().st_mode & 0o7111 == 0


def test_clutter_is_left_out_and_empty_folders_are_kept(tmp_path: Path) -> None:
    entries = [
        GOOD,
        Entry(name="__MACOSX/train/._1.jpg"),
        Entry(name=".DS_Store"),
        Entry(name="train/.hidden/1.jpg"),
        Entry(name="train/empty/", data=b"", mode=0o040755),
    ]
    folder = extract(archives.raw(entries), tmp_path)
    assert files(folder) == ["train/cats/1.jpg"]
    assert (folder / "train/empty").is_dir()


def test_a_small_file_may_be_as_empty_as_it_likes(tmp_path: Path) -> None:
    assert files(extract(archives.zipped({"black.bmp": bytes(900_000)}), tmp_path)) == ["black.bmp"]


def test_progress_counts_bytes_up_to_the_whole(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(PLAIN)
    seen: list[tuple[int, int]] = []
    archive.extract(tmp_path / "set.zip", into=tmp_path / "new", limits=LIMITS, report=lambda *step: seen.append(step))
    assert seen[:2] == [(700, 705), (705, 705)]
    assert seen[2:] == 6 * [(705, 705)]  # a sign of life for each file and folder that is written out


def test_an_interruption_leaves_no_staging(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(PLAIN)

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.extract(tmp_path / "set.zip", into=tmp_path / "new", limits=LIMITS, report=stop)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_seen_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=100))
    with fails("no space to unpack", reason=states.Reason.DISK_FULL):
        extract(PLAIN, tmp_path)


def test_every_single_cut_of_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    for length in range(len(PLAIN)):
        (tmp_path / "set.zip").write_bytes(PLAIN[:length])
        with pytest.raises(errors.StageFailed):
            archive.extract(tmp_path / "set.zip", into=tmp_path / "box" / "n", limits=LIMITS, report=lambda *_: None)
    assert list((tmp_path / "box").iterdir()) == []


def test_a_flipped_byte_gives_the_same_files_or_our_own_error(tmp_path: Path) -> None:
    target = tmp_path / "new"
    for position in range(len(PLAIN)):
        data = bytearray(PLAIN)
        data[position] ^= 0xFF
        (tmp_path / "set.zip").write_bytes(data)
        try:
            archive.extract(tmp_path / "set.zip", into=target, limits=LIMITS, report=lambda *_: None)
        except errors.StageFailed:
            assert not target.exists()
            continue
        for path in target.rglob("*.jpg"):
            assert zlib.crc32(path.read_bytes()) in {zlib.crc32(b"picture" * 100), zlib.crc32(b"other")}
        shutil.rmtree(target)
