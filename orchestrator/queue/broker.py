"""How the broker is reached: what its URL says to the client library, by which whoever rings asks, and workers hear."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator import config, sockets
from orchestrator.core import brokerurl


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one side waits for the broker, in seconds."""

    connect: float
    reply: float


#: A person waits: a hung broker may cost a moment, never the command.
CLIENT = Patience(connect=2, reply=2)
#: A worker's reply time lies above its blocking pop of one second.
WORKER = Patience(connect=5, reply=30)


def url(settings: config.Settings) -> str:
    """Return the broker's URL, password and all."""
    if settings.broker_url is not None:
        return settings.broker_url.get_secret_value()
    return f"redis+socket://{quote(str(sockets.broker(settings)))}?virtual_host=0"


def client(settings: config.Settings, patience: Patience) -> "redis.Redis":
    """Return a client of the broker; it connects at the first command, and tries once."""
    where, question, options = url(settings).partition("?")
    scheme, _, rest = where.partition("://")
    given: dict[str, Any] = {
        "socket_connect_timeout": patience.connect,
        "socket_timeout": patience.reply,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # 3 begins with HELLO, of which a refusal would speak where an account is missing
    }
    if scheme.lower() == "redis+socket":
        number = options.replace("virtual_host=/", "virtual_host=").replace("virtual_host=", "db=")
        return redis.Redis.from_url(f"unix://{rest}{question}{number}", **given)
    return redis.Redis.from_url(f"{scheme.lower()}://{rest}", **given | (tls(url(settings)) or {}))


def tls(url: str) -> dict[str, Any] | None:
    """Return what the client library wants to know; by itself it verifies nothing where a URL says nothing."""
    secured = brokerurl.tls(url)
    if secured is None:
        return None
    return {
        "ssl_cert_reqs": "required" if secured.verify else "none",
        "ssl_check_hostname": secured.check_hostname,
        "ssl_ca_certs": secured.ca_certs,
        "ssl_certfile": secured.certfile,
        "ssl_keyfile": secured.keyfile,
    }
