"""Whether a broker answers, asked over a plain socket."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.service import health


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is no broker that is away."""
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 60)


@pytest.fixture
def answer() -> bytes:
    return b"+PONG\r\n"


@pytest.fixture
def port(answer: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=60)


def ask(url: str) -> health.Broker:
    return health.broker(config.Settings(broker_url=url))


@pytest.mark.parametrize("answer", [b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n"])
def test_a_server_that_is_there_answers(port: int) -> None:
    broker = ask(f"redis://:secret@127.0.0.1:{port}/0")
    assert broker.answers
    assert "secret" not in broker.where


@pytest.mark.parametrize("answer", [b"-LOADING Valkey is loading\r\n"])
def test_a_server_that_cannot_serve_says_why(port: int) -> None:
    broker = ask(f"redis://127.0.0.1:{port}/0")
    assert not broker.answers
    assert broker.why == "LOADING Valkey is loading"


def test_a_server_that_is_away_is_refused(tmp_path: Path) -> None:
    assert health.broker(config.Settings(home=tmp_path)) == health.Broker(
        where="embedded", answers=False, why="No such file or directory"
    )


def test_a_server_that_accepts_and_says_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask(f"redis://127.0.0.1:{silent.getsockname()[1]}/0").why == "no answer within 0.1 seconds"
