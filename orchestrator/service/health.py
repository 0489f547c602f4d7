"""What orch stands on: which database, and whether the broker answers.

One PING over a plain socket asks the broker, since the client library takes 0.15 s to import.
"""

import socket
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from orchestrator import config, sockets
from orchestrator.core import brokerurl, masking

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
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except TimeoutError:
        return Broker(where=where, answers=False, why=f"no answer within {_TIMEOUT_SECONDS:g} seconds")
    except OSError as error:
        return Broker(where=where, answers=False, why=brokerurl.why(error))
    alive = answer.startswith(_ALIVE)
    return Broker(where=where, answers=alive, why=None if alive else answer.decode(errors="replace").strip("-\r\n"))


def _connect(settings: config.Settings) -> socket.socket:
    if settings.broker_url is None:
        return _unix(str(sockets.broker(settings)))
    url = settings.broker_url.get_secret_value()
    parts, tls = urlsplit(url), brokerurl.tls(url)
    if parts.scheme == "redis+socket":
        return _unix(unquote(parts.path))
    host = parts.hostname or "localhost"
    connection = socket.create_connection((host, parts.port or 6379), timeout=_TIMEOUT_SECONDS)
    return connection if tls is None else _secured(connection, tls, host)


def _secured(connection: socket.socket, tls: brokerurl.Tls, host: str) -> socket.socket:
    import ssl  # noqa: PLC0415 - it costs 10 ms, and most brokers speak plainly

    try:
        context = ssl.create_default_context(cafile=tls.ca_certs)
        context.check_hostname = tls.check_hostname
        context.verify_mode = ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE
        if tls.certfile is not None:
            context.load_cert_chain(tls.certfile, tls.keyfile)
        return context.wrap_socket(connection, server_hostname=host)
    except OSError:
        connection.close()
        raise


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT_SECONDS)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
