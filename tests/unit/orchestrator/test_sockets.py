"""Where sockets lie: every process of a home must come to the same folder, whoever started it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import config, sockets


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[config.Settings]:
    """A home whose own path is too long for sockets."""
    long = config.Settings(home=tmp_path / ("long" * 30))
    yield long
    sockets.tidy(long)


@pytest.mark.parametrize("variable", ["TMPDIR", "XDG_RUNTIME_DIR", "HOME"])
def test_the_folder_does_not_depend_on_who_asks(
    settings: config.Settings, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    over_ssh = sockets.broker(settings)
    monkeypatch.setenv(variable, str(tmp_path))
    assert sockets.broker(settings) == over_ssh
    assert len(str(sockets.path(settings, "x" * sockets.LONGEST_NAME))) <= sockets.LONGEST_PATH


def test_a_short_home_keeps_its_sockets_to_itself() -> None:
    home = config.SHARED / "orch-home"
    assert sockets.broker(config.Settings(home=home)) == home / "run" / "broker.sock"


def test_two_homes_share_no_folder(settings: config.Settings) -> None:
    other = settings.model_copy(update={"home": settings.home.with_name("long" * 31)})
    assert sockets.folder(settings) != sockets.folder(other)


def test_the_short_folder_goes_with_its_last_socket(settings: config.Settings) -> None:
    folder = sockets.folder(settings)
    folder.mkdir(mode=0o700)
    (folder / "broker.sock").touch()
    sockets.tidy(settings)
    assert folder.exists()
    (folder / "broker.sock").unlink()
    sockets.tidy(settings)
    assert not folder.exists()
