"""What fetching leaves on this host: waiting archives are taken up, and what nobody goes on with is removed."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import filelock
import pytest

from orchestrator import errors
from orchestrator.core import specs, states
from tests.support import archives, httpserver, pictures
from tests.unit.worker.data.conftest import Fails
from tests.unit.worker.data.test_cache import ARCHIVE, TWO, Make, Reply, ensure, leftovers
from worker import folders, protocol
from worker.data import archive, named, sources, supply, whole


def test_a_full_disk_while_unpacking_is_told_and_the_download_waits(
    server: httpserver.Server, make_settings: Make, fails: Fails
) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))

    def full(*_args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch, fails("The disk is full", reason=states.Reason.DISK_FULL):
        patch.setattr(archive, "_write", full)
        ensure(url, settings)
    assert leftovers(settings) == [f"{sources.parse(url).key}.zip"]
    ensure(url, settings)
    assert (len(server.requests), leftovers(settings)) == (1, [])


@pytest.mark.parametrize("data", ["url", "named"])
def test_a_stop_during_the_check_throws_no_download_away(
    server: httpserver.Server, make_settings: Make, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    settings = make_settings()
    url = source = server.on("/pets.zip", Reply(body=ARCHIVE))
    if data == "named":
        file = named.File(url, hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest())
        read = iter([[("train", "a", TWO[0]), ("val", "a", TWO[0]), ("train", "b", TWO[1]), ("val", "b", TWO[1])]])
        monkeypatch.setitem(named.SETS, "MNIST", named.Known(files=(file,), read=lambda _: iter(next(read))))
        source = "torchvision:MNIST"
    whole_once = False

    def stop(progress: protocol.Progress) -> None:
        nonlocal whole_once
        whole_once = whole_once or (progress.unit, progress.done) == ("bytes", progress.total)
        if progress.unit == "images" and whole_once:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(source, settings, report=stop)
    told: list[protocol.Progress] = []
    info = ensure(source, settings, report=told.append)
    assert Path(info.path).is_dir()
    assert (len(server.requests), told[0].unit, leftovers(settings)) == (1, "bytes", [])
    assert list((settings.data_dir / "archives").iterdir()) == []


def test_a_disk_that_fills_up_while_it_is_read_again_costs_no_download(
    server: httpserver.Server, make_settings: Make
) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    waiting = settings.data_dir / "archives" / f"{sources.parse(url).key}.zip"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(ARCHIVE)
    whole.note(waiting, hashlib.sha256(ARCHIVE).hexdigest())

    def full(_: protocol.Progress) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(errors.StageFailed, match="disk is full"):
        ensure(url, settings, report=full)
    assert waiting.exists()
    ensure(url, settings)
    assert server.requests == []


@pytest.mark.parametrize("spoilt", ["the archive", "what is said of it", "neither, but another is wanted"])
def test_a_waiting_archive_that_is_another_is_fetched_anew(
    server: httpserver.Server, make_settings: Make, spoilt: str
) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    waiting = settings.data_dir / "archives" / f"{sources.parse(url).key}.zip"
    waiting.parent.mkdir(parents=True)
    old = archives.zipped(pictures.members(seed=1))
    waiting.write_bytes(old[:-1] if spoilt == "the archive" else old)
    whole.note(waiting, "0" * 64 if spoilt == "what is said of it" else hashlib.sha256(old).hexdigest())
    wanted = hashlib.sha256(ARCHIVE).hexdigest()
    info = ensure(url, settings, sha256=wanted if spoilt.startswith("neither") else None)
    assert Path(info.path, "train/cats/0.jpg").read_bytes() == pictures.members()["train/cats/0.jpg"]
    assert list(waiting.parent.iterdir()) == []


def test_a_waiting_archive_goes_where_a_job_before_died_over_removing_it(
    server: httpserver.Server, make_settings: Make
) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    ensure(url, settings)
    waiting = settings.data_dir / "archives" / f"{sources.parse(url).key}.zip"
    waiting.touch()
    ensure(url, settings)
    assert list(waiting.parent.iterdir()) == []


def test_staging_of_a_killed_process_is_swept_by_the_next(server: httpserver.Server, make_settings: Make) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE))
    stale = settings.data_dir / "sets" / f".{sources.parse(url).key}" / "archive"
    stale.mkdir(parents=True)
    (stale / "half").write_bytes(b"x")
    ensure(url, settings)
    assert leftovers(settings) == []


def test_an_interrupted_download_goes_on_in_the_next_process(server: httpserver.Server, make_settings: Make) -> None:
    settings = make_settings()
    url = server.on("/pets.zip", Reply(body=ARCHIVE, cut_after=len(ARCHIVE) // 2))

    def stop(progress: protocol.Progress) -> None:
        if progress.done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(url, settings, report=stop)
    part = settings.data_dir / "archives" / f"{sources.parse(url).key}.part"
    assert 0 < part.stat().st_size < len(ARCHIVE)
    server.on("/pets.zip", Reply(body=ARCHIVE))
    ensure(url, settings)
    assert "range" in server.requests[-1].headers


def test_what_dead_processes_left_is_cleared_up_but_for_downloads_that_go_on(make_settings: Make) -> None:
    settings = make_settings()
    wanted = specs.parse({"data": "https://example.org/pets.zip"})
    kept, dead, held = sources.parse(wanted.data).key, "0a1b", "2c3d"
    litter = [name.format(key) for key in (dead, held) for name in ("archives/{}.part", "archives/{}.json")]
    litter += [name.format(key) for key in (dead, held, kept) for name in ("locks/{}.progress", "sources/.{}.json.tmp")]
    for name in [*litter, f"archives/{kept}.part", "sources/done.json"]:
        (settings.data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.data_dir / name).touch()
    (settings.data_dir / "sets" / f".{dead}" / "archive").mkdir(parents=True)
    with filelock.FileLock(settings.data_dir / "locks" / f"{held}.lock"):
        wanting = [wanted, specs.parse({"data": "nothing of the kind"})]
        supply.clear_up(folders.unfinished(settings.data_dir), wanting, settings=settings)
    left = [str(path.relative_to(settings.data_dir)) for path in settings.data_dir.rglob("*") if path.is_file()]
    theirs = [name for name in litter if held in name]
    assert {name for name in left if not name.endswith(".lock")} == {
        *theirs,
        f"archives/{kept}.part",
        "sources/done.json",
    }
    assert not (settings.data_dir / "sets" / f".{dead}").exists()
