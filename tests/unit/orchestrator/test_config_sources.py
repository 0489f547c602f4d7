"""Which source of a setting beats which, and what no source may say."""

from pathlib import Path

import pytest

from orchestrator import config, errors


@pytest.fixture(autouse=True)
def _of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder, a user's own folder and an environment that say nothing."""
    for name in config.Settings.model_fields:
        monkeypatch.delenv(config.variable(name), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "own" / "orch").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def test_each_source_beats_the_ones_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().sweep == 5
    own = config.user_file()
    assert own is not None
    own.write_text("sweep = 4", encoding="utf-8")
    assert config.load().sweep == 4
    (tmp_path / "orch.toml").write_text("sweep = 3", encoding="utf-8")
    assert config.load().sweep == 3
    (tmp_path / ".env").write_text("ORCH_SWEEP=2\nSECRET_OF_ANOTHER_PROGRAM=canary\n", encoding="utf-8")
    assert config.load().sweep == 2
    assert config.origins()["sweep"] == str(tmp_path / ".env")
    monkeypatch.setenv("ORCH_SWEEP", "1")
    assert config.load().sweep == 1
    assert config.origins()["sweep"] == "ORCH_SWEEP"
    assert config.load(sweep=0.5).sweep == 0.5
    assert config.load(sweep=None).sweep == 1


@pytest.mark.parametrize("name", config.SECRETS)
def test_a_secret_comes_from_a_file_without_its_line_break(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {"database_url": "postgresql://me:pw@host/orch", "broker_url": "redis://:pw@host/0"}.get(
        name, "https://host/pw"
    )
    (tmp_path / "secret").write_text(f"{url}\n", encoding="utf-8")
    monkeypatch.setenv(f"{config.variable(name)}_FILE", str(tmp_path / "secret"))
    found = getattr(config.load(), name)
    assert found.get_secret_value() == url
    assert "pw" not in repr(config.load())


@pytest.mark.parametrize(
    "names", [("ORCH_BROKER_URL", "ORCH_BROKER_URL_FILE"), ("ORCH_BROKER_URL_FILE", "ORCH_BROKER_URL")]
)
def test_a_secret_beats_its_file_whichever_was_set_first(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("redis://file:6379/0", encoding="utf-8")
    given = {"ORCH_BROKER_URL": "redis://itself:6379/0", "ORCH_BROKER_URL_FILE": str(tmp_path / "secret")}
    for name in names:
        monkeypatch.setenv(name, given[name])
    found = config.load().broker_url
    assert found is not None
    assert found.get_secret_value() == given["ORCH_BROKER_URL"]


def test_a_file_that_cannot_be_read_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_BROKER_URL_FILE", "/nowhere")
    with pytest.raises(errors.InvalidSetting, match="ORCH_BROKER_URL_FILE names a file"):
        config.load()


@pytest.mark.parametrize("text", ["leese = 3", "lease = ", "lease = -1"])
def test_a_fault_in_a_file_is_named_with_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "orch.toml").write_text(text, encoding="utf-8")
    with pytest.raises(errors.InvalidSetting) as refused:
        config.load()
    assert "orch.toml" in f"{refused.value.message} {refused.value.why}"


def test_an_unknown_variable_of_ours_in_a_dotenv_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ORCH_LEESE=canary\n", encoding="utf-8")
    with pytest.raises(errors.InvalidSetting) as refused:
        config.load()
    assert "ORCH_LEESE" in refused.value.message
    assert str(tmp_path / ".env") in refused.value.message
    assert "canary" not in f"{refused.value.message} {refused.value.why}"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "It is empty"), (b"\n", "It is empty"), (b"x" * 5000, "longer than"), (b"\xffcanary", "not text in UTF-8")],
)
def test_a_secret_s_file_without_a_url_is_told_without_its_content(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("ORCH_BROKER_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(errors.InvalidSetting, match="ORCH_BROKER_URL_FILE") as refused:
        config.load()
    assert said in str(refused.value.why)
    assert "canary" not in f"{refused.value.message} {refused.value.why}"
