"""What orch stands on: which database, and whether the broker answers.

One PING over a plain socket asks the broker, since the client library takes 0.15 s to import.
"""

import socket
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator import config, sockets
from orchestrator.core import masking

_TIMEOUT_SECONDS = 2.0

#: Answers of a server that is there; NOAUTH asks for the password first.
_ALIVE = (b"+PONG", b"-NOAUTH")


@dataclass(frozen=True, kw_only=True)
class Broker:
    """The broker as it is now."""

    where: str  #: which one, without its password
    answers: bool
    why: str | None  #: why it does not


def database(settings: config.Settings) -> str:
    """Return which database the settings mean: the embedded one's file, or the URL without its password."""
    return str(settings.home / "orch.db") if settings.embedded_database else masking.server(settings.database)


def broker(settings: config.Settings) -> Broker:
    """Ask the broker whether it is there."""
    where = masking.server(settings.broker_url.get_secret_value()) if settings.broker_url else "embedded"
    try:
        with closing(_connect(settings)) as connection:
            if where.startswith("rediss:"):  # that it accepts is enough; the real client knows the certificates
                return Broker(where=where, answers=True, why=None)
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except TimeoutError:
        return Broker(where=where, answers=False, why=f"no answer within {_TIMEOUT_SECONDS:g} seconds")
    except OSError as error:
        return Broker(where=where, answers=False, why=error.strerror or type(error).__name__)
    alive = answer.startswith(_ALIVE)
    return Broker(where=where, answers=alive, why=None if alive else answer.decode(errors="replace").strip("-\r\n"))


def _connect(settings: config.Settings) -> socket.socket:
    if settings.broker_url is None:
        return _unix(str(sockets.path(settings, "broker.sock")))
    url = urlsplit(settings.broker_url.get_secret_value())
    if "socket" in url.scheme or url.scheme == "unix":
        return _unix(url.path)
    return socket.create_connection((url.hostname or "localhost", url.port or 6379), timeout=_TIMEOUT_SECONDS)


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT_SECONDS)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
