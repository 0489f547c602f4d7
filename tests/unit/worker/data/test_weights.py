"""Pre-trained weights on this host: torchvision's come once, whole, and are what their name says."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import specs
from orchestrator.core import weights as named
from tests.support import httpserver
from tests.unit.worker.data.conftest import Fails
from worker import folders
from worker.data import supply, weights

Make = Callable[..., config.Settings]
BODY = b"weights" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()
FILE = f"densenet121-{DIGEST[:8]}.pth"
SPEC = specs.JobSpec(network="densenet121_imagenet", weights="imagenet")


@pytest.fixture(autouse=True)
def _file_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(named.IMAGENET_FILES, "densenet121_imagenet", FILE)


@pytest.fixture
def settings(server: httpserver.Server, make_settings: Make) -> config.Settings:
    """Settings whose hub is the loopback server."""
    return make_settings(weights_url=server.url("/models/"))


def ensure(spec: specs.JobSpec, settings: config.Settings) -> Path | None:
    return weights.ensure(spec, settings=settings, report=lambda _progress: None)


def test_weights_of_imagenet_come_once(server: httpserver.Server, settings: config.Settings) -> None:
    server.on(f"/models/{FILE}", httpserver.Reply(body=BODY))
    path = ensure(SPEC, settings)
    assert path == settings.data_dir / "weights" / FILE
    assert path.read_bytes() == BODY
    assert ensure(SPEC, settings) == path
    assert len(server.requests) == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert folders.unfinished(settings.data_dir) == []


def test_how_far_a_process_had_come_that_died_behind_the_file_is_nobodys(
    server: httpserver.Server, settings: config.Settings
) -> None:
    server.on(f"/models/{FILE}", httpserver.Reply(body=BODY))
    ensure(SPEC, settings)
    (settings.data_dir / "locks" / f"{Path(FILE).stem}.progress").touch()
    ensure(SPEC, settings)
    assert folders.unfinished(settings.data_dir) == []


def test_a_file_that_has_changed_on_disk_comes_again(server: httpserver.Server, settings: config.Settings) -> None:
    server.on(f"/models/{FILE}", httpserver.Reply(body=BODY))
    path = ensure(SPEC, settings)
    assert path is not None
    path.write_bytes(BODY[:-1] + b"x")
    assert ensure(SPEC, settings) == path
    assert path.read_bytes() == BODY


def test_another_file_than_its_name_says_is_refused(
    server: httpserver.Server, settings: config.Settings, fails: Fails
) -> None:
    server.on(f"/models/{FILE}", httpserver.Reply(body=b"x" + BODY[1:]))
    with fails("not the file that was asked for"):
        ensure(SPEC, settings)
    assert list((settings.data_dir / "weights").iterdir()) == []


@pytest.mark.parametrize("wanted", [True, False])
def test_what_a_broken_download_left_stays_as_long_as_a_job_wants_it(
    settings: config.Settings, *, wanted: bool
) -> None:
    folder = settings.data_dir / "weights"
    folder.mkdir(parents=True)
    (settings.data_dir / "locks").mkdir()
    left = [folder / f"{Path(FILE).stem}.part", settings.data_dir / "locks" / f"{Path(FILE).stem}.progress"]
    for path in left:
        path.write_bytes(b"x")
    (folder / FILE).write_bytes(BODY)
    supply.clear_up(folders.unfinished(settings.data_dir), [SPEC] if wanted else [specs.JobSpec()], settings=settings)
    assert [path.exists() for path in left] == [wanted, False]
    assert (folder / FILE).exists()


def test_a_file_is_used_where_it_is(settings: config.Settings, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(BODY)
    assert ensure(specs.JobSpec(weights=str(tmp_path / "w.pth")), settings) == tmp_path / "w.pth"
    assert ensure(specs.JobSpec(), settings) is None


@pytest.mark.parametrize(
    ("name", "said"), [("gone.pth", "There is no"), ("", "is no file"), ("../w.pth", "outside the folders")]
)
def test_no_other_file_is_read(make_settings: Make, tmp_path: Path, fails: Fails, name: str, said: str) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "w.pth").write_bytes(BODY)
    settings = make_settings(data_roots=(tmp_path / "allowed",))
    with fails(said):
        ensure(specs.JobSpec(weights=str(tmp_path / "allowed" / name)), settings)
