"""Ringing doorbells: by name, after the commit, best effort."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError, ResponseError

from orchestrator import config, errors, failpoints
from orchestrator.core import brokerurl, masking
from orchestrator.core.states import Stage
from orchestrator.queue import app as queue_app
from orchestrator.queue import messages

#: What a broker that is away, hung, full or read-only raises.
BROKER_ERRORS = (KombuError, RedisError, OSError)


def ring(settings: config.Settings, stage: Stage) -> None:
    """Say once that a job waits at `stage`; raises BrokerUnavailable within a few seconds."""
    with Doorbell(settings) as doorbell:
        doorbell.ring(stage)


@dataclass(frozen=True, kw_only=True)
class Server:
    """How a broker keeps what lies on it."""

    policy: str  #: what it evicts when its memory is full
    append_only: bool  #: whether it finds its doorbells again after a restart


class Doorbell:
    """A connection to the broker that rings and counts; not for use by several threads at once."""

    def __init__(self, settings: config.Settings, patience: queue_app.Patience = queue_app.CLIENT) -> None:
        self._where = where(settings)
        self._hint = (
            "`orch up -d` starts it."
            if settings.embedded_broker
            else f"Check that it runs, and that {config.variable('broker_url')} is right."
        )
        self._app: Celery = queue_app.create(settings, patience)
        # A connection of its own: Celery's pool would keep a broken one, and its pools are shared by all apps.
        self._connection = self._app.connection_for_write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.release()

    def prepare(self) -> None:
        """Import and make what the first doorbell needs, but for the connection: that takes longer than to ring."""
        self._app.finalize()
        _ = self._app.backend

    def ring(self, stage: Stage, times: int = 1) -> None:
        """Send `times` doorbells for the stage; raises BrokerUnavailable."""
        with self._explained():
            failpoints.reach("doorbell.send")
            self._connect()
            for _ in range(times):
                self._app.send_task(messages.TASKS[stage], connection=self._connection)

    def waiting(self, stages: Iterable[Stage]) -> dict[Stage, int]:
        """Return how many doorbells lie unheard for each stage; raises BrokerUnavailable."""
        with self._explained():
            failpoints.reach("doorbell.length")
            self._connect()
            return {stage: self._length(stage) for stage in stages}

    def server(self) -> Server | None:
        """Return how the server keeps what lies on it, None where it does not let us know; raises BrokerUnavailable.

        By INFO, and not by CONFIG, which hosted servers do not have.
        """
        with self._explained():
            failpoints.reach("doorbell.server")
            self._connect()
            channel: Any = self._connection.default_channel
            try:
                told = channel.client.info()
            except ResponseError:  # the account may not, or the command has another name there
                return None
        return Server(policy=str(told["maxmemory_policy"]), append_only=bool(told["aof_enabled"]))

    def _connect(self) -> None:
        self._connection.ensure_connection(max_retries=0)  # left to itself, it tries for six seconds

    def _length(self, stage: Stage) -> int:
        queue: Any = self._app.amqp.queues[messages.QUEUES[stage]]
        return int(queue(self._connection.default_channel).queue_declare().message_count)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BROKER_ERRORS as error:
            self._connection.release()
            self._connection = self._app.connection_for_write()
            raise errors.BrokerUnavailable(
                "The broker cannot be reached.",
                why=f"{self._where}: {brokerurl.why(error)}.",
                hint=self._hint,
            ) from error


def where(settings: config.Settings) -> str:
    """Return which broker the settings mean, for people: no password in it."""
    if settings.broker_url is None:
        return f"the embedded server in {settings.home}"
    return masking.server(settings.broker_url.get_secret_value())
