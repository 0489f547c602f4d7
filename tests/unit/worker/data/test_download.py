"""Downloads are resumed, limited and whole, and leave nothing behind."""

import email.utils
import multiprocessing
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.core import states
from tests.support import durability, httpserver
from tests.support.waiting import until
from tests.unit.worker.data.conftest import BODY, SHA256, URL, Fails, Fetch, left
from worker.data import download

Reply = httpserver.Reply


class Interrupted(Exception):
    """As if the process had been killed."""


def interrupt_at(fetch: Fetch, size: int) -> None:
    def report(done: int, _total: int | None) -> None:
        if done >= size:
            raise Interrupted

    with pytest.raises(Interrupted):
        fetch(report=report)


def test_a_file_is_published_whole(server: httpserver.Server, fetch: Fetch, tmp_path: Path) -> None:
    server.on(URL, Reply(body=BODY))
    seen: list[tuple[int, int | None]] = []
    archive = fetch(sha256=SHA256, report=lambda done, total: seen.append((done, total)))
    assert archive.path.read_bytes() == BODY
    assert left(tmp_path) == ["set.zip"]
    assert seen[-1] == (len(BODY), len(BODY))


def test_a_name_appears_only_after_the_bytes_are_on_disk(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on(URL, Reply(body=BODY))
    happened = durability.recorded(monkeypatch, tmp_path)
    fetch()
    assert happened == ["fsync set.part", "rename set.part set.zip", "fsync ."]


def test_an_interrupted_download_goes_on_where_it_stopped(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path
) -> None:
    server.on(URL, Reply(body=BODY, rate=2_000_000))
    interrupt_at(fetch, 100_000)
    had = (tmp_path / "set.part").stat().st_size
    server.on(URL, Reply(body=BODY))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY
    assert server.requests[-1].headers["range"] == f"bytes={had}-"
    assert server.requests[-1].headers["if-range"] == '"1"'


def test_a_part_that_is_whole_already_is_not_downloaded_again(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path
) -> None:
    server.on(URL, Reply(body=BODY))
    interrupt_at(fetch, len(BODY))
    (tmp_path / "set.part").write_bytes(BODY)
    server.on(URL, Reply(status=416, headers={"Content-Range": f"bytes */{len(BODY)}"}))
    before = server.sent(URL)
    assert fetch(sha256=SHA256).path.read_bytes() == BODY
    assert server.sent(URL) == before


def test_a_cut_connection_is_resumed_in_the_same_call(server: httpserver.Server, fetch: Fetch) -> None:
    server.on(URL, Reply(body=BODY, cut_after=120_000), Reply(body=BODY, cut_after=90_000), Reply(body=BODY))
    assert fetch().sha256 == SHA256
    assert server.sent(URL) == len(BODY)


@pytest.mark.parametrize(
    "second",
    [
        Reply(body=BODY, ranges=False),  # no Range support: 200 with everything
        Reply(body=BODY, etag='"2"'),  # another file by now: If-Range fails, 200
        Reply(body=BODY, range_from=50_000),  # a 206 of another range
        Reply(body=BODY, content_range="nonsense"),
        Reply(status=416),  # no longer that long
    ],
    ids=["no range", "new etag", "wrong range", "nonsense range", "416"],
)
def test_a_part_is_thrown_away_rather_than_appended_to_wrongly(
    server: httpserver.Server, fetch: Fetch, second: Reply
) -> None:
    server.on(URL, Reply(body=BODY, rate=2_000_000))
    interrupt_at(fetch, 100_000)
    server.on(URL, second, Reply(body=BODY))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_whole(server: httpserver.Server, fetch: Fetch) -> None:
    server.on(URL, Reply(body=BODY, rate=2_000_000))
    interrupt_at(fetch, 100_000)
    server.on(URL, Reply(body=BODY[::-1], etag='"2"'))
    assert fetch().path.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_strong_validator_nothing_is_resumed(
    server: httpserver.Server, fetch: Fetch, etag: str | None
) -> None:
    server.on(URL, Reply(body=BODY, etag=etag, cut_after=100_000), Reply(body=BODY, etag=etag))
    assert fetch(sha256=SHA256).path.exists()
    assert all("range" not in seen.headers for seen in server.requests)


def test_a_modification_time_is_validator_enough(server: httpserver.Server, fetch: Fetch) -> None:
    date = email.utils.formatdate(usegmt=True)
    server.on(URL, Reply(body=BODY, etag=None, headers={"Last-Modified": date}, cut_after=100_000), Reply(body=BODY))
    assert fetch(sha256=SHA256).path.exists()
    assert server.requests[1].headers["if-range"] == date


def test_a_damaged_sidecar_means_a_fresh_start(server: httpserver.Server, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "set.part").write_bytes(b"of unknown origin")
    (tmp_path / "set.json").write_bytes(b"{")
    server.on(URL, Reply(body=BODY))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY


def test_a_tampered_part_is_found_by_its_digest(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails
) -> None:
    server.on(URL, Reply(body=BODY, rate=2_000_000))
    interrupt_at(fetch, 100_000)
    with (tmp_path / "set.part").open("r+b") as part:
        part.write(b"flipped")
    with fails("is not the file that was asked for"):
        fetch(sha256=SHA256)
    assert left(tmp_path) == []


def test_a_wrong_sha256_is_refused_and_nothing_is_kept(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails
) -> None:
    server.on(URL, Reply(body=BODY))
    with fails("is not the file that was asked for"):
        fetch(sha256="0" * 64)
    assert left(tmp_path) == []


def test_an_endless_body_ends_at_the_limit(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails
) -> None:
    server.on(URL, Reply(body=BODY, endless=True))
    with fails("is larger than 1,000,000 bytes"):
        fetch(max_bytes=1_000_000)
    assert left(tmp_path) == []


def test_a_declared_size_beyond_the_limit_is_not_even_begun(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails
) -> None:
    server.on(URL, Reply(body=BODY, rate=1000))
    seen: list[int] = []
    with fails("is larger than 1,000 bytes"):
        fetch(max_bytes=1000, report=lambda done, _total: seen.append(done))
    assert seen == []
    assert left(tmp_path) == []


def test_a_download_that_takes_too_long_stops_and_keeps_its_part(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails
) -> None:
    server.on(URL, Reply(body=BODY, rate=50_000))
    with fails("took longer than 0.3 seconds", reason=states.Reason.TIMEOUT):
        fetch(max_seconds=0.3)
    assert (tmp_path / "set.part").stat().st_size > 0


def test_a_full_disk_is_seen_before_the_download(
    server: httpserver.Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    server.on(URL, Reply(body=BODY))
    with fails("There is no space", reason=states.Reason.DISK_FULL):
        fetch()


def test_a_body_without_a_length_is_taken_to_its_end(server: httpserver.Server, fetch: Fetch) -> None:
    server.on(URL, Reply(body=BODY, length=False))
    assert fetch(sha256=SHA256).path.exists()


def _download_in_part(url: str, folder: str) -> None:
    """Download until some of it is on the disk, and wait there to be killed."""
    policy = download.Policy(max_bytes=10**7, max_seconds=60, private_hosts_allowed=True)

    def report(done: int, _total: int | None) -> None:
        if done >= 100_000:
            signal.pause()

    download.fetch(url, folder=Path(folder), name="set", sha256=None, policy=policy, report=report)


def test_a_download_that_is_killed_goes_on_where_it_was(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path
) -> None:
    server.on(URL, Reply(body=BODY))
    victim = multiprocessing.get_context("spawn").Process(
        target=_download_in_part, args=(server.url(URL), str(tmp_path))
    )
    victim.start()
    part = tmp_path / "set.part"
    until(lambda: part.exists() and part.stat().st_size > 0, seconds=60)
    victim.kill()
    victim.join()
    had = part.stat().st_size
    server.on(URL, Reply(body=BODY))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY
    assert server.requests[-1].headers["range"] == f"bytes={had}-"
