"""Which values are no settings."""

import os
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


@pytest.mark.parametrize(
    ("url", "guard"),
    [
        ("redis://host/canary", "the database behind its last / must be a number"),
        ("redis://host/0?canary=1", "behind its ? may stand nothing in redis://"),
        ("redis://host/0?ssl_cert_reqs=required", "behind its ? may stand nothing in redis://"),
        ("rediss://host/0?sslmode=canary", "behind its ? may stand ssl_ca_certs, ssl_cert_reqs, ssl_certfile"),
        ("rediss://host/0?ssl_cert_reqs=canary", "its ssl_cert_reqs must be none or required"),
        ("rediss://host/0?ssl_check_hostname=canary", "its ssl_check_hostname must be false or true"),
        ("rediss://host/0?ssl_ca_certs=canary.pem", "its ssl_ca_certs must be the absolute path of a file"),
        ("rediss://host/0?ssl_ca_certs=/canary.pem", "its ssl_ca_certs must be the absolute path of a file"),
        ("redis+socket:///run/x.sock?canary=1", "behind its ? may stand virtual_host"),
        ("redis+socket:///run/x.sock?virtual_host=canary", "its virtual_host must be the number of a database"),
        ("redis://host/0;redis://canary/0", "a number"),
        ("redis://:canary;redis@host/0", "a ; in it must be written as %3b"),
    ],
)
def test_what_a_broker_s_url_may_not_say_is_refused_and_not_shown(url: str, guard: str) -> None:
    with pytest.raises(errors.InvalidSetting) as refused:
        config.load(broker_url=url)
    assert guard in refused.value.message
    assert "canary" not in f"{refused.value.message} {refused.value.why} {refused.value.hint}"


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "rediss://:pw@host:6380/1",
        "rediss://user:pw@host/0?ssl_cert_reqs=required&ssl_check_hostname=true",
        "redis+socket:///run/x.sock",
        "redis+socket:///run/x.sock?virtual_host=2",
        "redis+socket:///run/x.sock?virtual_host=/2",
    ],
)
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


@pytest.mark.parametrize("name", ["home", "artifacts", "data_cache"])
def test_a_folder_whose_name_is_no_utf8_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.variable(name), os.fsdecode(b"/srv/\xe4"))
    with pytest.raises(errors.InvalidSetting, match=f"The setting {name} cannot be used: it is no utf-8 text"):
        config.load()


def test_a_home_of_whose_database_there_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", "/srv/what?")
    with pytest.raises(errors.InvalidSetting, match=r"The setting home cannot be used: it holds a \?"):
        config.load()


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
