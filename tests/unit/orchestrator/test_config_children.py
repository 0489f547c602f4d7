"""What a process passes on to its children is what they read: whatever the kind of value, and where it came from."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import config


@pytest.fixture(autouse=True)
def _of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and an environment that say nothing."""
    for name in config.Settings.model_fields:
        monkeypatch.delenv(config.variable(name), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def _in_a_child(settings: config.Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    for name, value in config.child_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return config.load()


@pytest.mark.parametrize(
    "given",
    [
        {"home": "here", "artifacts": "there", "lock_dir": "../locks"},
        {"database_url": "postgresql://me:secret@host/orch", "broker_url": "redis://:p%40ss@host/0"},
        {"data_roots": ["/srv/data", "more"]},
        {"data_roots": []},  # none, which is not the same as any
        {"allow_private_hosts": False, "threads": 3, "heartbeat": 0.25, "worker_name": "a/b c"},
    ],
)
def test_a_child_elsewhere_has_the_same_settings(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    mine = config.load(**given)
    places = (mine.home, mine.artifact_dir, mine.lock_dir, *(mine.data_roots or ()))
    assert all(place.is_absolute() for place in places)
    assert _in_a_child(mine, tmp_path / "elsewhere", monkeypatch) == mine


def test_values_of_the_project_file_and_of_dotenv_reach_a_child_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "orch.toml").write_text('data_roots = ["data"]\nstall = 7.5\n', encoding="utf-8")
    (tmp_path / ".env").write_text("ORCH_BROKER_URL=redis://host/3\n", encoding="utf-8")
    theirs = _in_a_child(config.load(), tmp_path / "elsewhere", monkeypatch)
    assert theirs.data_roots == (tmp_path / "data",)
    assert theirs.stall == 7.5
    assert theirs.broker_url is not None
    assert theirs.broker_url.get_secret_value() == "redis://host/3"


def test_what_the_project_empties_is_empty_in_a_child_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "orch").mkdir()
    own = 'sinks = "wandb"\nlabels = "big"\nuser_limits = {ada = 1}\ntag_limits = {big = 1}\n'
    (tmp_path / "orch" / "config.toml").write_text(own, encoding="utf-8")
    assert config.load().limits
    emptied = 'sinks = ""\nlabels = ""\nuser_limits = {}\ntag_limits = {}\n'
    (tmp_path / "orch.toml").write_text(emptied, encoding="utf-8")
    mine = config.load()
    theirs = _in_a_child(mine, tmp_path / "elsewhere", monkeypatch)
    for settings in (mine, theirs):
        assert (settings.sink_names, settings.label_names, bool(settings.limits)) == ((), (), False)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert config.load(home="~/orch").home == Path("/home/someone/orch")
