"""What a node's teller sends, and what it makes of the answers."""

import json
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.core import telling
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.support import httpserver
from worker import teller


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a target of this process answer when the machine lets it."""
    monkeypatch.setattr(teller, "_TIMEOUT", (60.0, 60.0))


@pytest.fixture
def server() -> Iterator[httpserver.Server]:
    with httpserver.Server() as serving:
        yield serving


@pytest.fixture
def sender(store: sql.SqlStore, settings: config.Settings) -> teller.Teller:
    return teller.Teller(store, settings, stop=threading.Event())


def cancelled(store: sql.SqlStore, *targets: str) -> str:
    job = parts.submit(store, notify=telling.Telling(targets=targets))
    return store.cancel(job.id, actor="ada").id


def last(store: sql.SqlStore, job_id: str) -> tuple[str, str]:
    event = store.events(job_id)[-1]
    return event.kind, str(event.detail)


def test_a_webhook_gets_json_and_a_key(
    sender: teller.Teller, store: sql.SqlStore, server: httpserver.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.on("/canary?token=canary", httpserver.Reply(status=204))
    job_id = cancelled(store, url)
    sender.round()
    sender.round()
    (seen,) = server.requests
    assert seen.path == "/canary?token=canary"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["idempotency-key"] == json.loads(seen.body)["key"]
    assert json.loads(seen.body)["text"] == f"Job {job_id} was cancelled."
    assert last(store, job_id) == ("told", f"cancelled: http://127.0.0.1:{server.port}/***")
    assert "canary" not in capsys.readouterr().err


def test_a_server_in_trouble_is_asked_again(
    sender: teller.Teller, store: sql.SqlStore, server: httpserver.Server, clock: HandClock
) -> None:
    job_id = cancelled(store, server.on("/hook", httpserver.Reply(status=503), httpserver.Reply()))
    sender.round()
    assert len(server.requests) == 1
    clock.move(seconds=5)
    sender.round()
    first, second = server.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert last(store, job_id)[0] == "told"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (httpserver.Reply(status=403), "it answers 403"),
        (httpserver.Reply(status=302, headers={"Location": "/elsewhere"}), "it answers 302"),  # never followed
    ],
)
def test_a_refusal_ends_it(
    sender: teller.Teller, store: sql.SqlStore, server: httpserver.Server, reply: httpserver.Reply, why: str
) -> None:
    job_id = cancelled(store, server.on("/hook", reply))
    sender.round()
    kind, detail = last(store, job_id)
    assert (kind, why in detail) == ("not_told", True)
    assert len(server.requests) == 1


def test_a_connection_cut_after_the_request_is_one_of_two_tries(
    sender: teller.Teller, store: sql.SqlStore, server: httpserver.Server, clock: HandClock
) -> None:
    job_id = cancelled(store, server.on("/hook", httpserver.Reply(raw=b"")))
    for _ in range(3):
        sender.round()
        clock.move(hours=1)
    assert len(server.requests) == telling.MAY_BE_HEARD
    assert last(store, job_id)[0] == "not_told"


def test_an_answer_that_comes_byte_by_byte_is_given_up(
    sender: teller.Teller,
    store: sql.SqlStore,
    server: httpserver.Server,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teller, "_LONGEST_SECONDS", 0.3)
    job_id = cancelled(store, server.on("/hook", httpserver.Reply(drip=True)))

    def try_twice() -> None:
        sender.round()
        clock.move(seconds=5)
        sender.round()

    rounds = threading.Thread(target=try_twice, daemon=True)
    rounds.start()
    rounds.join(60)
    assert not rounds.is_alive()
    assert last(store, job_id)[0] == "not_told"
    assert "no whole answer in 0.3 seconds" in last(store, job_id)[1]


def test_a_port_where_nobody_listens_is_tried_to_the_end(
    sender: teller.Teller, store: sql.SqlStore, server: httpserver.Server, clock: HandClock
) -> None:
    url = server.url("/hook").replace(str(server.port), "1")
    job_id = cancelled(store, url)
    for _ in range(telling.TRIES):
        sender.round()
        clock.move(hours=1)
    assert last(store, job_id) == ("not_told", "cancelled: http://127.0.0.1:1/*** (NewConnectionError)")


def test_a_private_address_is_refused_where_others_submit(
    store: sql.SqlStore, settings: config.Settings, server: httpserver.Server
) -> None:
    guarded = settings.model_copy(update={"allow_private_hosts": False})
    job_id = cancelled(store, server.on("/hook", httpserver.Reply()))
    teller.Teller(store, guarded, stop=threading.Event()).round()
    assert last(store, job_id)[1] == f"cancelled: http://127.0.0.1:{server.port}/*** (Its address is 127.0.0.1.)"
    assert server.requests == []


def test_an_answer_that_cannot_be_stored_is_kept_for_the_next_round(
    sender: teller.Teller,
    store: sql.SqlStore,
    server: httpserver.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = cancelled(store, server.on("/hook", httpserver.Reply()))
    told = store.next_notice

    def away(answer: telling.Answer | None = None, *, more: bool = True) -> telling.Notice | None:
        if answer is not None:
            raise errors.DatabaseUnavailable
        return told(answer, more=more)

    with monkeypatch.context() as patch:
        patch.setattr(store, "next_notice", away)
        with pytest.raises(errors.DatabaseUnavailable):
            sender.round()
    sender.round()
    assert len(server.requests) == 1
    assert last(store, job_id)[0] == "told"


class Service:
    """A service as apprise makes one: https://github.com/caronc/apprise, apprise.NotifyBase."""

    templates = ("{schema}://{host}/{token}",)
    said: list[tuple[str, str]]

    def __init__(self, host: str) -> None:
        self.host, self.port, self.said = host, None, []

    def notify(self, *, body: str, title: str) -> bool:
        self.said.append((title, body))
        return True


def test_other_services_are_apprises(
    store: sql.SqlStore, settings: config.Settings, sender: teller.Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service("localhost")

    class Apprise:
        @staticmethod
        def instantiate(url: str, *, suppress_exceptions: bool) -> Any:
            return service if url == "far://localhost/canary" and suppress_exceptions else None

    monkeypatch.setitem(sys.modules, "apprise", types.SimpleNamespace(Apprise=Apprise))
    job_id = cancelled(store, "far://localhost/canary")
    sender.round()
    assert service.said == [("orch: cancelled", f"Job {job_id} was cancelled.")]
    assert last(store, job_id) == ("told", "cancelled: far://***")

    unknown = cancelled(store, "nowhere://x")
    sender.round()
    assert "knows no such service" in last(store, unknown)[1]

    guarded = teller.Teller(store, settings.model_copy(update={"allow_private_hosts": False}), stop=threading.Event())
    refused = cancelled(store, "far://localhost/canary")
    guarded.round()
    assert "not on the public internet" in last(store, refused)[1]

    monkeypatch.setitem(sys.modules, "apprise", None)
    missing = cancelled(store, "far://localhost/canary")
    sender.round()
    assert "pip install 'orch[notify]'" in last(store, missing)[1]


def test_a_node_that_drains_begins_nothing_more(store: sql.SqlStore, settings: config.Settings) -> None:
    stop = threading.Event()
    stop.set()
    job_id = cancelled(store, "far://x")
    teller.Teller(store, settings, stop=stop).round()
    assert last(store, job_id)[0] == "cancelled"
