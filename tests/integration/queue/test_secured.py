"""A broker for many hosts: an account of its own, TLS that proves the server, and each refusal in words and in time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kombu.exceptions import KombuError

from orchestrator import config, errors
from orchestrator.core import brokerurl, states
from orchestrator.queue import app as queue_app
from orchestrator.queue import broker as brokers
from orchestrator.queue import dispatch
from orchestrator.service import checks, doctor, health
from tests.support import certificates, proxy, valkey
from tests.support.waiting import until

#: What docs/operations.md gives the account of a shared server.
ACCOUNT = "user orch on >canary resetkeys ~orch:* resetchannels -@all +@connection +lpush +brpop +llen +multi +exec"

#: More than a busy machine needs: who is not answered in time is not answered ever.
SECONDS = 30

#: How long a client waits, and a look whether a server is there.
IMPATIENT = brokers.CLIENT, health._TIMEOUT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A server with an account, and TLS in front of it whose certificate is made out to localhost."""

    plain: int
    secured: int
    ca: Path
    other_ca: Path
    between: proxy.Proxy


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("secured")
    ca, other = certificates.authority(folder, "ca"), certificates.authority(folder, "other")
    context = certificates.server(folder, ca, "localhost")
    with (
        valkey.Server(folder / "valkey", "user default off", ACCOUNT) as server,
        proxy.Proxy(("127.0.0.1", server.port), tls=context) as between,
    ):
        yield Broker(plain=server.port, secured=between.port, ca=ca, other_ca=other, between=between)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no longer than a person does, for a server that does not answer."""
    monkeypatch.setattr(brokers, "CLIENT", IMPATIENT[0])
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", IMPATIENT[1])


def _settings(url: str, tmp_path: Path) -> config.Settings:
    return config.load(home=tmp_path, broker_url=url)


def _refused(url: str, tmp_path: Path) -> str:
    """Return why a doorbell is refused; within the time, and without the password."""
    began = time.monotonic()
    with pytest.raises(errors.BrokerUnavailable) as refused:
        dispatch.ring(_settings(url, tmp_path), states.Stage.TRAIN)
    assert time.monotonic() - began < SECONDS
    assert "canary" not in f"{refused.value.message} {refused.value.why} {refused.value.hint}"
    return str(refused.value.why)


def _checks(url: str, tmp_path: Path) -> list[checks.Check]:
    return [check for check in doctor.examine(_settings(url, tmp_path)) if check.name == "broker"]


def test_an_account_and_a_certificate_open_it(broker: Broker, tmp_path: Path) -> None:
    secret = tmp_path / "broker_url"
    secret.write_text(f"rediss://orch:canary@localhost:{broker.secured}/0?ssl_ca_certs={broker.ca}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ORCH_BROKER_URL_FILE", str(secret))
        settings = config.load(home=tmp_path)
    doorbell = dispatch.Doorbell(settings)
    doorbell.ring(states.Stage.DOWNLOAD, 2)
    assert doorbell.waiting([states.Stage.DOWNLOAD]) == {states.Stage.DOWNLOAD: 2}
    assert health.broker(settings).answers
    (check,) = _checks(secret.read_text(encoding="utf-8").strip(), tmp_path)
    assert (check.level, check.fix) == (checks.Level.OK, None)


@pytest.mark.parametrize(
    ("account", "why"),
    [
        ("orch:canary-wrong@", "invalid username-password pair"),
        (":canary@", "invalid username-password pair"),
        ("", "Authentication required"),
    ],
)
def test_a_wrong_account_is_refused_in_words(account: str, why: str, broker: Broker, tmp_path: Path) -> None:
    url = f"redis://{account}127.0.0.1:{broker.plain}/0"
    assert why in _refused(url, tmp_path)
    (check,) = _checks(url, tmp_path)
    assert check.level is checks.Level.FAIL
    assert why in check.found


def test_keys_of_others_are_out_of_its_reach(broker: Broker, tmp_path: Path) -> None:
    settings = config.load(
        home=tmp_path, broker_url=f"redis://orch:canary@127.0.0.1:{broker.plain}/0", broker_prefix="other:"
    )
    with pytest.raises(errors.BrokerUnavailable, match="cannot be reached") as refused:
        dispatch.ring(settings, states.Stage.TRAIN)
    assert "No permissions" in str(refused.value.why)


@pytest.mark.parametrize(
    ("host", "authority", "why"),
    [
        ("localhost", "other_ca", "its certificate is refused: unable to get local issuer certificate"),
        ("localhost", None, "its certificate is refused: unable to get local issuer certificate"),
        ("127.0.0.1", "ca", "its certificate is refused: IP address mismatch"),
    ],
)
def test_a_server_that_does_not_prove_who_it_is_is_refused(
    host: str, authority: str | None, why: str, broker: Broker, tmp_path: Path
) -> None:
    options = "" if authority is None else f"?ssl_ca_certs={getattr(broker, authority)}"
    url = f"rediss://orch:canary@{host}:{broker.secured}/0{options}"
    assert why in _refused(url, tmp_path)
    assert why in str(health.broker(_settings(url, tmp_path)).why)


@pytest.mark.parametrize(
    ("account", "authority", "why"),
    [
        ("orch:canary", "ca", None),
        ("orch:canary", "other_ca", "its certificate is refused: unable to get local issuer certificate"),
        ("orch:canary-wrong", "ca", "invalid username-password pair or user is disabled"),
    ],
)
def test_workers_hear_by_an_account_and_from_a_server_that_proves_who_it_is(
    account: str, authority: str, why: str | None, broker: Broker, tmp_path: Path
) -> None:
    url = f"rediss://{account}@localhost:{broker.secured}/0?ssl_ca_certs={getattr(broker, authority)}"
    refused = None
    with queue_app.create(_settings(url, tmp_path)).connection_for_read() as connection:
        try:
            connection.ensure_connection(max_retries=0)
        except KombuError as error:
            refused = brokerurl.why(error)
    assert refused == why


@pytest.mark.usefixtures("impatient")
def test_tls_to_a_plain_port_is_refused(broker: Broker, tmp_path: Path) -> None:
    url = f"rediss://orch:canary@localhost:{broker.plain}/0?ssl_ca_certs={broker.ca}"
    assert "it does not speak TLS as expected" in _refused(url, tmp_path)
    assert not health.broker(_settings(url, tmp_path)).answers


def test_plain_words_to_a_port_with_tls_are_refused(broker: Broker, tmp_path: Path) -> None:
    assert "Connection closed by server" in _refused(f"redis://orch:canary@localhost:{broker.secured}/0", tmp_path)


def test_a_check_that_is_turned_off_is_a_warning(broker: Broker, tmp_path: Path) -> None:
    for option, word in (("ssl_cert_reqs=none", "from anybody"), ("ssl_check_hostname=false", "for any host")):
        url = f"rediss://orch:canary@127.0.0.1:{broker.secured}/0?{option}&ssl_ca_certs={broker.ca}"
        (check,) = _checks(url, tmp_path)
        assert check.level is checks.Level.WARN
        assert word in check.found
        assert "ssl_ca_certs" in str(check.fix)
        assert "canary" not in f"{check.found} {check.fix}"


@pytest.mark.usefixtures("impatient")
def test_silence_behind_tls_ends_in_time(broker: Broker, tmp_path: Path) -> None:
    url = f"rediss://orch:canary@localhost:{broker.secured}/0?ssl_ca_certs={broker.ca}"
    broker.between.silence()
    try:
        until(lambda: "Timeout" in _refused(url, tmp_path), seconds=60)  # on a busy machine TLS itself may take longer
    finally:
        broker.between.heal()
        until(lambda: broker.between.live == 0)
