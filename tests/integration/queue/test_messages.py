"""What lies in a queue may come from anybody: it is JSON, or it is thrown away unread."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import ContentDisallowed

from orchestrator import config
from orchestrator.core import states
from orchestrator.queue import app as queue_app
from orchestrator.queue import embedded, messages


class Planted:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self._path,)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """A worker's app beside a real broker."""
    settings = config.Settings(home=tmp_path / "home")
    embedded.ensure(settings)
    yield queue_app.create(settings, queue_app.WORKER)
    embedded.stop(settings)


def _heard(app: Celery, body: object, serializer: str) -> list[object]:
    """Return what a worker's consumer makes of a message: its body, or why it was refused."""
    queue = app.amqp.queues[messages.QUEUES[states.Stage.TRAIN]]
    heard: list[object] = []
    with app.connection_for_write() as connection:
        producer: Any = connection.Producer()
        producer.publish(body, exchange="", routing_key=queue.name, declare=[queue], serializer=serializer)
        with app.amqp.TaskConsumer(
            connection.default_channel,
            queues=[queue],
            callbacks=[lambda body, _message: heard.append(body)],
            on_decode_error=lambda _message, error: heard.append(error),
        ):
            connection.drain_events(timeout=5)
    return heard


def test_json_is_heard(app: Celery) -> None:
    assert _heard(app, {"a": 1}, "json") == [{"a": 1}]


def test_a_pickle_is_refused_unread(app: Celery, tmp_path: Path) -> None:
    planted = tmp_path / "unpickled"
    (refused,) = _heard(app, Planted(planted), "pickle")
    assert isinstance(refused, ContentDisallowed)
    assert not planted.exists()
