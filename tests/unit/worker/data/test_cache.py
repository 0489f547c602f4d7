"""The data cache: fetched once, published whole, found again without a network, rebuilt when spoilt."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.core import specs
from tests.support import archives, durability, httpserver, pictures
from tests.unit.worker.data.conftest import Fails
from worker import protocol
from worker.data import cache, imagefolder, once, sources, supply

Make = Callable[..., config.Settings]
Reply = httpserver.Reply
ARCHIVE = archives.zipped(pictures.members(top="pets"))
TWO = [pictures.encoded(pictures.noise(seed)) for seed in range(2)]


def ensure(
    data: object,
    settings: config.Settings,
    *,
    expected: str | None = None,
    sha256: str | None = None,
    report: once.Report = lambda _progress: None,
) -> protocol.DatasetInfo:
    spec = specs.parse({"data": str(data), "data_sha256": sha256})
    return supply.ensure_data(spec, expected_hash=expected, settings=settings, report=report)


def leftovers(settings: config.Settings) -> list[str]:
    """Return what is in the cache and should not be there once nobody works."""
    folders = ("sources", "sets", "archives", "locks")
    names = [path.name for folder in folders for path in (settings.data_dir / folder).glob("*")]
    return [name for name in names if name.startswith(".") or name.endswith((".part", ".zip", ".progress"))]


def test_a_download_becomes_a_set(server: httpserver.Server, make_settings: Make) -> None:
    settings = make_settings()
    units: list[str] = []
    info = ensure(server.on("/pets.zip", Reply(body=ARCHIVE)), settings, report=lambda now: units.append(now.unit))
    assert info.classes == ("cats", "dogs")
    assert info.counts == {"train": 12, "val": 6}
    folder = Path(info.path)
    assert folder.is_absolute()
    assert sorted(path.name for path in folder.iterdir()) == ["train", "validation"]
    assert json.loads((folder.parent / "manifest.json").read_bytes())["hash"] == info.hash
    assert (units[0], units[-1]) == ("bytes", "images")
    assert leftovers(settings) == []


def test_a_set_appears_only_after_all_of_it_is_on_disk(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    settings = make_settings()
    happened = durability.recorded(monkeypatch, settings.data_dir)
    info = ensure(tmp_path / "pets.zip", settings)
    published = next(index for index, line in enumerate(happened) if line.endswith(f" sets/{info.hash}"))
    before, after = happened[:published], happened[published + 1 :]
    synced = {line.partition("archive/")[2] for line in before if line.startswith("fsync")}
    written = {path.relative_to(info.path).as_posix() for path in Path(info.path).rglob("*")}
    assert {f"pets/{name}" for name in written} <= synced
    assert [line.split()[0] for line in before if ".manifest.json" in line] == ["fsync", "rename"]
    assert after[0] == "fsync sets"


def test_the_second_job_asks_no_server(server: httpserver.Server, make_settings: Make) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    first = ensure(url, settings)
    assert ensure(url, settings) == first == ensure(url, settings, expected=first.hash)
    assert len(server.requests) == 1


def test_a_set_is_known_by_content_whatever_the_source(
    server: httpserver.Server, make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings()
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    first = ensure(tmp_path / "pets.zip", settings)
    assert ensure(server.on("/elsewhere.zip", Reply(body=ARCHIVE)), settings).path == first.path
    assert len(list((settings.data_dir / "sets").iterdir())) == 1


def test_a_folder_is_used_where_it_is(make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings()
    folder = pictures.image_folder(tmp_path / "pets")
    info = ensure(folder, settings)
    assert info.path == str(folder)
    assert not (settings.data_dir / "sets").exists()
    assert ensure(f"file:{folder}", settings) == info


def test_a_folder_and_its_archive_have_the_same_hash(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    folder = pictures.image_folder(tmp_path / "set")
    assert ensure(folder, make_settings()).hash == ensure(tmp_path / "pets.zip", make_settings()).hash


def test_an_unchanged_folder_is_not_decoded_again(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    folder = pictures.image_folder(tmp_path / "pets")
    info = ensure(folder, settings)
    monkeypatch.setattr(imagefolder, "admit", None)
    assert ensure(folder, settings, expected=info.hash) == info


def test_a_folder_that_changed_since_the_job_began_is_refused(
    make_settings: Make, tmp_path: Path, fails: Fails
) -> None:
    settings = make_settings()
    folder = pictures.image_folder(tmp_path / "pets")
    info = ensure(folder, settings)
    (folder / "train" / "cats" / "0.jpg").write_bytes(pictures.encoded(pictures.noise(99)))
    with fails("The data changed since the job began"):
        ensure(folder, settings, expected=info.hash)
    assert ensure(folder, settings).hash != info.hash  # a new job takes the new data


def test_an_archive_that_changed_is_unpacked_anew(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    settings = make_settings()
    path = tmp_path / "pets.zip"
    path.write_bytes(ARCHIVE)
    old = ensure(path, settings)
    path.write_bytes(archives.zipped(pictures.members(seed=1)))
    new = ensure(path, settings)
    assert new.hash != old.hash
    assert ensure(path, settings, expected=old.hash).hash == old.hash  # the old set is still there
    shutil.rmtree(Path(old.path).parent)
    with fails("The data changed since the job began"):
        ensure(path, settings, expected=old.hash)


@pytest.mark.parametrize(
    "spoilt", ["a picture is gone", "a picture was cut", "no manifest", "no set", "no manifest text"]
)
def test_a_spoilt_set_is_fetched_again(server: httpserver.Server, make_settings: Make, spoilt: str) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    info = ensure(url, settings)
    folder = Path(info.path)
    picture = folder / "train" / "cats" / "0.jpg"
    match spoilt:
        case "a picture is gone":
            picture.unlink()
        case "a picture was cut":
            picture.write_bytes(picture.read_bytes()[:100])
        case "no manifest":
            (folder.parent / "manifest.json").unlink()
        case "no manifest text":
            (folder.parent / "manifest.json").write_bytes(b"{")
        case _:
            shutil.rmtree(folder.parent)
    assert ensure(url, settings, expected=info.hash) == info
    assert picture.read_bytes() == pictures.members()["train/cats/0.jpg"]
    assert leftovers(settings) == []


def test_a_wanted_sha256_is_checked_against_what_was_downloaded_before(
    server: httpserver.Server, make_settings: Make, fails: Fails
) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    ensure(url, settings)
    with fails("is not the file that was asked for"):
        ensure(url, settings, sha256="0" * 64)


def test_a_local_archive_is_checked_against_its_sha256(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    with fails("is not the file that was asked for"):
        ensure(tmp_path / "pets.zip", make_settings(), sha256="0" * 64)
    assert (tmp_path / "pets.zip").exists()


def test_a_local_archive_gives_signs_of_life_while_it_is_summed_up(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    said: list[protocol.Progress] = []
    ensure(tmp_path / "pets.zip", make_settings(), report=said.append)
    assert (said[0].done, said[0].total, said[0].unit) == (len(ARCHIVE), len(ARCHIVE), "bytes")


def test_a_folder_has_no_sha256(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    with fails("has no sha256"):
        ensure(pictures.image_folder(tmp_path / "pets"), make_settings(), sha256="0" * 64)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!doctype html>", "sent HTML"),
        (archives.raw([archives.Entry(name="../evil")]), "leads out of the archive"),
        (archives.zipped(pictures.members(splits={"train": 2})), "no validation split"),
        (archives.zipped(pictures.members() | {"train/cats/1.png": b"x"}), "train/cats/1.png is not a picture"),
    ],
    ids=["html", "slip", "no validation", "bad picture"],
)
def test_bad_data_leaves_nothing_behind(
    server: httpserver.Server, make_settings: Make, body: bytes, words: str, fails: Fails
) -> None:
    settings = make_settings()
    with fails(words):
        ensure(server.on("/pets.zip", Reply(body=body)), settings)
    assert leftovers(settings) == []
    assert list((settings.data_dir / "sets").iterdir()) == []
    assert list((settings.data_dir / "archives").iterdir()) == []


def test_a_set_beyond_the_unpacked_limit_is_refused(
    server: httpserver.Server, make_settings: Make, fails: Fails
) -> None:
    with fails("unpacks to"):
        ensure(server.on("/pets.zip", Reply(body=ARCHIVE)), make_settings(extract_max_bytes=1000))


def test_a_shared_worker_refuses_private_hosts(server: httpserver.Server, make_settings: Make, fails: Fails) -> None:
    settings = make_settings(database_url="postgresql://host/db")
    with fails("is not on the public internet"):
        ensure(server.on("/pets.zip", Reply(body=ARCHIVE)), settings)


def test_a_link_out_of_the_roots_is_refused(make_settings: Make, tmp_path: Path, fails: Fails) -> None:
    folder = pictures.image_folder(tmp_path / "root" / "pets")
    (tmp_path / "secret.png").write_bytes(pictures.encoded(pictures.noise(0), "PNG"))
    (folder / "train" / "cats" / "9.png").symlink_to(tmp_path / "secret.png")
    with fails("is a link that leads out"):
        ensure(folder, make_settings(data_roots=(tmp_path / "root",)))
    assert ensure(folder, make_settings()).counts["train"] == 13


def _ensure_in_child(url: str, home: Path, results: Any, both_have_told: Any) -> None:
    told: list[int] = []

    def report(progress: protocol.Progress) -> None:
        if not told:  # who downloads goes on when the other one waits, and knows how far it is
            both_have_told.wait(60)
        told.append(progress.done)

    info = ensure(url, config.Settings(home=home), report=report)
    results.put((info.path, len(told)))


def test_two_processes_share_one_download_and_both_report_its_progress(
    server: httpserver.Server, tmp_path: Path
) -> None:
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    spawning = multiprocessing.get_context("spawn")
    results, barrier = spawning.Queue(), spawning.Barrier(2)
    children = [spawning.Process(target=_ensure_in_child, args=(url, tmp_path, results, barrier)) for _ in range(2)]
    for child in children:
        child.start()
    (first, told), (second, told_too) = results.get(timeout=60), results.get(timeout=60)
    for child in children:
        child.join()
    assert first == second
    assert server.sent("/pets.zip") == len(ARCHIVE)
    assert min(told, told_too) > 0


def test_threads_on_many_sources_do_not_disturb_each_other(server: httpserver.Server, make_settings: Make) -> None:
    settings = make_settings()
    urls = [server.on(f"/{index}.zip", Reply(body=ARCHIVE)) for index in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda url=url: found.append(ensure(url, settings).path)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_set_is_here_when_its_source_has_gone(make_settings: Make, tmp_path: Path) -> None:
    settings, path = make_settings(), tmp_path / "pets.zip"
    path.write_bytes(ARCHIVE)
    info, spec = ensure(path, settings), specs.parse({"data": str(path)})
    path.unlink()
    assert supply.here(spec, info.hash, settings=settings) == info
    assert supply.here(spec, "another", settings=settings) is None


def test_a_set_that_is_read_is_not_removed(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    settings, spec = make_settings(), specs.parse({"data": str(tmp_path / "pets.zip")})
    held = cache.Cache(settings.data_dir)
    with supply.using(spec, expected_hash=None, settings=settings, report=lambda _: None) as info:
        with (
            pytest.raises(errors.OrchError, match="is in use"),
            supply.using(spec, expected_hash=info.hash, settings=settings, report=lambda _: None),
        ):
            held.remove(info.hash)
        assert ensure(tmp_path / "pets.zip", settings).path == info.path
    held.remove(info.hash)
    assert not Path(info.path).exists()
    own = pictures.image_folder(tmp_path / "own", size=(12, 10))
    mine = specs.parse({"data": str(own)})
    with supply.using(mine, expected_hash=None, settings=settings, report=lambda _: None) as info:
        held.remove(info.hash)  # it is only forgotten
        assert (Path(info.path), own.is_dir()) == (own, True)


def test_a_set_that_is_removed_just_before_it_is_held_is_fetched_again(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets.zip").write_bytes(ARCHIVE)
    spec, settings, found = specs.parse({"data": str(tmp_path / "pets.zip")}), make_settings(), list[str]()
    first = supply.ensure_data

    def ensure_and_lose(*args: Any, **named: Any) -> protocol.DatasetInfo:
        info = first(*args, **named)
        found.append(info.hash)
        if len(found) == 1:
            cache.Cache(settings.data_dir).remove(info.hash)
        return info

    monkeypatch.setattr(supply, "ensure_data", ensure_and_lose)
    with supply.using(spec, expected_hash=None, settings=settings, report=print) as info:
        assert Path(info.path).is_dir()
    assert found == [info.hash] * 2


def test_the_packaged_digits_are_whole(make_settings: Make) -> None:
    info = ensure("digits", make_settings())
    assert info.classes == tuple("0123456789")
    assert info.counts == {"train": 1433, "val": 364}
    assert "CC BY 4.0" in sources.DIGITS.with_name("LICENSE.txt").read_text(encoding="utf-8")
    assert sources.DIGITS.exists()


def test_the_data_half_reaches_no_torch() -> None:
    code = "import sys, worker.data.stage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
