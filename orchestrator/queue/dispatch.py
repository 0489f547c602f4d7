"""Ringing doorbells, after the commit, best effort; and asking the broker how many of them lie unheard."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError, ResponseError

from orchestrator import config, errors, failpoints
from orchestrator.core import brokerurl, masking
from orchestrator.core.states import Stage
from orchestrator.queue import broker, messages


def ring(settings: config.Settings, stage: Stage) -> None:
    """Say once that a job waits at `stage`; raises BrokerUnavailable within a few seconds."""
    Doorbell(settings).ring(stage)


@dataclass(frozen=True, kw_only=True)
class Server:
    """How a broker keeps what lies on it."""

    policy: str  #: what it evicts when its memory is full
    append_only: bool  #: whether it finds its doorbells again after a restart


class Doorbell:
    """Rings at the broker, and counts what lies there: over a connection for each time, so that none grows old."""

    def __init__(self, settings: config.Settings, patience: broker.Patience | None = None) -> None:
        self._settings = settings
        self._patience = patience or broker.CLIENT

    def ring(self, stage: Stage, times: int = 1) -> None:
        """Send `times` doorbells for the stage; raises BrokerUnavailable."""
        doorbells = (messages.doorbell(messages.QUEUES[stage]) for _ in range(times))
        with self._explained(), broker.client(self._settings, self._patience) as client:
            failpoints.reach("doorbell.send")
            client.lpush(self._key(stage), *doorbells)

    def waiting(self, stages: Iterable[Stage]) -> dict[Stage, int]:
        """Return how many doorbells lie unheard for each stage; raises BrokerUnavailable."""
        with self._explained(), broker.client(self._settings, self._patience) as client:
            failpoints.reach("doorbell.length")
            return {stage: int(client.llen(self._key(stage))) for stage in stages}

    def server(self) -> Server | None:
        """Return how the server keeps what lies on it, None where it does not let us know; raises BrokerUnavailable.

        By INFO, and not by CONFIG, which hosted servers do not have.
        """
        with self._explained(), broker.client(self._settings, self._patience) as client:
            failpoints.reach("doorbell.server")
            try:
                told = client.info()
            except ResponseError:  # the account may not, or the command has another name there
                return None
        return Server(policy=str(told["maxmemory_policy"]), append_only=bool(told["aof_enabled"]))

    def _key(self, stage: Stage) -> str:
        return f"{self._settings.broker_prefix}{messages.QUEUES[stage]}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RedisError) as error:
            raise errors.BrokerUnavailable(
                "The broker cannot be reached.",
                why=f"{where(self._settings)}: {brokerurl.why(error)}.",
                hint="`orch up -d` starts it."
                if self._settings.embedded_broker
                else f"Check that it runs, and that {config.variable('broker_url')} is right.",
            ) from error


def where(settings: config.Settings) -> str:
    """Return which broker the settings mean, for people: no password in it."""
    if settings.broker_url is None:
        return f"the embedded server in {settings.home}"
    return masking.server(settings.broker_url.get_secret_value())
