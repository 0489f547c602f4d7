"""Which values are no settings."""

from pathlib import Path

import pytest

from orchestrator import config, errors


@pytest.mark.parametrize(
    "url", ["broker", "http://host", "valkey://host", "redis://", "redis://host:99999", "redis://[x"]
)
def test_what_is_no_broker_s_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(errors.InvalidSetting) as refused:
        config.load(broker_url=f"{url}/canary")
    assert "redis://:password@host:6379/0" in refused.value.message
    assert "canary" not in f"{refused.value.message} {refused.value.why} {refused.value.hint}"


@pytest.mark.parametrize("url", ["redis://host", "rediss://:pw@host:6380/1", "redis+socket:///run/x.sock"])
def test_a_broker_s_url_is_taken(url: str) -> None:
    broker = config.load(broker_url=url).broker_url
    assert broker is not None
    assert broker.get_secret_value() == url


def test_a_relative_database_file_is_the_same_for_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load(database_url="sqlite:///here.db").database == f"sqlite:///{tmp_path}/here.db"
    assert config.load(database_url="sqlite:////there.db").database == "sqlite:////there.db"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    for name in ("broker_url", "database_url", "artifacts", "threads"):
        monkeypatch.setenv(config.variable(name), "")
    settings = config.load()
    assert settings.embedded_broker
    assert settings.embedded_database
    assert settings.artifact_dir == tmp_path / "artifacts"


@pytest.mark.parametrize(
    ("timings", "refused"),
    [
        ({"heartbeat": 60, "lease": 30}, "lease"),  # living jobs would be taken back
        ({"lease": 8, "sweep": 5, "heartbeat": 1}, "sweep"),  # dead ones never
    ],
)
def test_timings_that_would_break_the_lease_are_refused(timings: dict[str, float], refused: str) -> None:
    with pytest.raises(errors.InvalidSetting, match=f"The setting {refused} cannot be used"):
        config.load(**timings)
