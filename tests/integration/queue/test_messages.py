"""What lies in a queue may come from anybody: it is dropped unread, and a doorbell is heard in its place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from orchestrator import config, sockets
from orchestrator.core import states
from orchestrator.queue import app as queue_app
from orchestrator.queue import dispatch, embedded, messages
from tests.faults.corpus import doorbells
from worker import tasks

QUEUE = messages.QUEUES[states.Stage.TRAIN]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[config.Settings]:
    settings = config.Settings(home=tmp_path_factory.mktemp("home"))
    embedded.ensure(settings)
    yield settings
    embedded.stop(settings)


@pytest.fixture(scope="module")
def app(settings: config.Settings) -> Celery:
    """A worker's app beside a real broker."""
    app = queue_app.create(settings)
    tasks.register(app, lambda: None, (states.Stage.TRAIN,))
    return app


def test_whatever_is_pushed_is_heard_as_a_doorbell(app: Celery, settings: config.Settings, tmp_path: Path) -> None:
    canary = tmp_path / "run"
    heard: list[tuple[Any, ...]] = []

    def hear(message: Any) -> None:
        heard.append((message.headers["task"], message.decode(), set(message.headers)))
        message.ack()

    with (
        embedded.client(settings) as broker,
        app.connection_for_read() as connection,
        app.amqp.TaskConsumer(connection.default_channel, queues=[app.amqp.queues[QUEUE]], on_message=hear),
    ):
        for name, pushed in doorbells.cases(str(canary)).items():
            broker.lpush(f"{settings.broker_prefix}{QUEUE}", pushed)
            try:
                while not heard:
                    connection.drain_events(timeout=60)
            except Exception as error:
                error.add_note(name)
                raise
            assert heard == [("orch.train.v1", [[], {}, {}], {"task", "id"})], name
            assert not canary.exists(), name
            heard.clear()
        assert list(broker.scan_iter()) == []  # nothing waits for an acknowledgement, and no book is kept


@pytest.mark.parametrize(
    ("scheme", "number"),
    [("redis+socket", "0"), ("redis+socket", "3"), ("redis+socket", "/5"), ("REDIS+SOCKET", "0")],
)
def test_what_is_rung_is_heard_in_the_database_that_the_url_names(
    scheme: str, number: str, settings: config.Settings
) -> None:
    url = f"{scheme}://{sockets.broker(settings)}?virtual_host={number}"
    there = config.Settings(home=settings.home, broker_url=url, broker_prefix="other:")
    hears, heard = queue_app.create(there), list[str]()

    def hear(message: Any) -> None:
        heard.append(message.headers["task"])
        message.ack()  # or it would lie there again, for other tests

    dispatch.ring(there, states.Stage.TRAIN)
    assert dispatch.Doorbell(there).waiting(states.Stage) == dict.fromkeys(states.Stage, 0) | {states.Stage.TRAIN: 1}
    with (
        hears.connection_for_read() as connection,
        hears.amqp.TaskConsumer(
            connection.default_channel,
            queues=[hears.amqp.queues[QUEUE]],
            on_message=hear,
        ),
    ):
        connection.drain_events(timeout=60)
    assert heard == [messages.TASKS[states.Stage.TRAIN]]


def test_a_big_message_is_refused_by_the_server(settings: config.Settings) -> None:
    with embedded.client(settings) as broker:
        for body in doorbells.big().values():
            with pytest.raises(redis.RedisError):
                broker.lpush(f"{settings.broker_prefix}{QUEUE}", body)
        assert broker.llen(f"{settings.broker_prefix}{QUEUE}") == 0
