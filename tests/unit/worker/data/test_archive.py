"""Zip archives: each fault is told apart from the others, and nothing of a bad archive stays anywhere."""

import shutil
import struct
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


def raw(*entries: archives.Entry) -> bytes:
    return archives.raw([GOOD, *entries])


def overlapping() -> bytes:
    """Return two members whose headers lie within one another's data."""
    inner = archives.raw([Entry(name="b", data=b"y" * 50)])
    return archives.raw([Entry(name="a", data=inner), Entry(name="b", data=b"y" * 50, offset=30 + len("a"))])


def nested_end_record_claiming(directory: int) -> bytes:
    """Return an archive whose end record claims so large a directory."""
    return PLAIN[:-10] + struct.pack("<II", directory, 0) + PLAIN[-2:]


DEFLATED = Entry(name="d", data=b"0123456789" * 10, method=archives.DEFLATED)

#: (id, archive, words of its refusal)
MALFORMED: list[tuple[str, bytes, str]] = [
    ("parent", raw(Entry(name="../evil")), "leads out of the archive"),
    ("parent inside", raw(Entry(name="train/../../evil")), "leads out of the archive"),
    ("parent at the end", raw(Entry(name="train/..")), "leads out of the archive"),
    ("absolute", raw(Entry(name="/etc/evil")), "has an absolute path"),
    ("drive", raw(Entry(name="C:/evil")), "names a drive"),
    ("drive relative", raw(Entry(name="c:evil")), "names a drive"),
    ("backslash", raw(Entry(name="..\\evil")), "has a backslash"),
    ("unc", raw(Entry(name="\\\\host\\share")), "has a backslash"),
    ("nul", raw(Entry(name="evil\0.jpg")), "has a NUL"),
    ("empty name", raw(Entry(name="")), "has an empty part"),
    ("double slash", raw(Entry(name="train//1.jpg")), "has an empty part"),
    ("dot part", raw(Entry(name="train/./1.jpg")), "has an empty part"),
    ("too deep", raw(Entry(name="/".join("abcdefg"))), "lies deeper than 6 folders"),
    ("long path", raw(Entry(name="/".join("x" * 250 for _ in range(5)))), "more than 1024 bytes"),
    ("long name", raw(Entry(name="x" * 256)), "more than 255 bytes"),
    ("bad utf-8", raw(Entry(name=b"\xff\xfe", flags=0x800)), "directory is damaged"),
    ("duplicate", raw(GOOD), "is there twice"),
    ("case", raw(Entry(name="train/cats/1.JPG")), "in case only"),
    ("case of a folder", raw(Entry(name="train/Cats/2.jpg")), "in case only"),
    ("unicode forms", raw(Entry(name="é", flags=0x800), Entry(name="e\u0301", flags=0x800)), "accents are coded"),
    ("file and folder", raw(Entry(name="train/cats")), "both a file and a folder"),
    ("link", raw(Entry(name="l", data=b"/etc/passwd", mode=archives.LINK)), "is a link"),
    ("pipe", raw(Entry(name="p", mode=archives.FIFO)), "is a device or pipe"),
    ("device", raw(Entry(name="d", mode=archives.DEVICE)), "is a device or pipe"),
    ("encrypted", raw(Entry(name="e", flags=1)), "is encrypted"),
    ("bzip2", raw(Entry(name="b", method=12)), "compressed by method 12"),
    ("unknown method", raw(Entry(name="b", method=77)), "compressed by method 77"),
    ("stored lie", raw(Entry(name="s", data=b"abc", size=10**6)), "lies about its size"),
    ("larger lie", raw(Entry(name="d", data=b"x" * 9, method=archives.DEFLATED, size=1000)), "lies about its size"),
    ("smaller lie", raw(Entry(name="d", data=b"x" * 999, method=archives.DEFLATED, size=5)), "is damaged"),
    ("crc", raw(Entry(name="c", crc=1)), "is damaged"),
    ("garbled", raw(Entry(name="g", data=b"\xff" * 40)).replace(b"\xff" * 40, bytes(40)), "is damaged"),
    ("other name inside", raw(Entry(name="n", local_name=b"m")), "is damaged"),
    ("folder with contents", raw(Entry(name="f/", data=b"abc", mode=0o040755)), "with contents of its own"),
    ("bomb", raw(Entry(name="b", data=bytes(5_000_000), method=archives.DEFLATED)), "is a decompression bomb"),
    ("claimed bomb", raw(Entry(name="b", method=archives.DEFLATED, size=9_000_000)), "is a decompression bomb"),
    ("overlap", overlapping(), "overlaps another member"),
    ("same data twice", raw(Entry(name="again", offset=0)), "overlaps another member"),
    ("no header there", raw(Entry(name="n", offset=5)), "is not where the directory says"),
    ("into the directory", archives.raw([Entry(name="n", data=b"x", compressed=60, size=60)]), "into the directory"),
    ("too large", raw(*(Entry(name=f"{i}", data=bytes(900_000)) for i in range(12))), "unpacks to"),
    ("too many", raw(*(Entry(name=f"{i}") for i in range(50))), "more than 50 members"),
    ("too many, fewer claimed", archives.raw([Entry(name=f"{i}") for i in range(60)], count=2), "more than 50 members"),
    ("huge directory claimed", nested_end_record_claiming(0xFFFF_FFF0), "more than 50 members"),
    ("directory beyond the file", nested_end_record_claiming(len(PLAIN) + 1), "directory is damaged"),
    ("truncated", PLAIN[:-30], "is truncated"),
    ("cut in the middle", PLAIN[: len(PLAIN) // 2], "is truncated"),
    ("empty", b"", "is empty"),
    ("html", b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "sent HTML"),
    ("html without doctype", b"<HTML>404</HTML>", "sent HTML"),
    ("gzip", b"\x1f\x8b" + bytes(100), "is gzip, not zip"),
    ("7-zip", b"7z\xbc\xaf\x27\x1c" + bytes(100), "is 7-Zip, not zip"),
    ("noise", bytes(range(256)) * 4, "is not a zip archive"),
]  # fmt: skip


def extract(data: bytes, folder: Path, limits: zipcheck.Limits = LIMITS) -> Path:
    (folder / "box").mkdir()
    (folder / "set.zip").write_bytes(data)
    archive.extract(folder / "set.zip", into=folder / "box" / "new", limits=limits, report=lambda *_: None)
    return folder / "box" / "new"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_bad_archive_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes, words: str, fails: Fails) -> None:
    with fails(words):
        extract(data, tmp_path)
    assert files(tmp_path) == ["set.zip"]
    assert list((tmp_path / "box").iterdir()) == []


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
    assert seen == [(700, 705), (705, 705)]


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
