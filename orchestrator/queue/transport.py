"""Kombu's Redis transport, deaf to what a message says: whatever lies in a queue is a doorbell.

Each thing that is taken from a list is dropped unread, and a fresh doorbell is heard in its place. Nothing that anybody
pushes is parsed, decoded, unpacked or looked up: kombu and Celery end their worker at a message without a body, at one
that is not JSON, at a time limit that is a word, and a worker that ends gives its job back.
"""

import functools
from typing import Any

from kombu.transport import redis

from orchestrator.queue import messages

#: The name under which kombu finds it; a URL's scheme cannot hold a module's name.
ALIAS = "orch"
CLASS = f"{__name__}:Transport"


class _Client(redis.PrefixedStrictRedis):
    """Takes a message from a list, and answers with a doorbell for that list."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name == "BRPOP" and answer:
            key, _ = answer
            return key, messages.doorbell(key.decode().partition(Channel.sep)[0])
        return answer


class Channel(redis.Channel):
    """A channel that keeps no book at the broker, which could be forged.

    None of messages under way: a doorbell that is lost is rung again. None of which queue is bound to which exchange:
    every doorbell goes to a queue by its name.
    """

    ack_emulation = False

    def _queue_bind(self, *_: object) -> None:
        """Write nothing."""

    def _get_client(self) -> Any:
        return functools.partial(_Client, global_keyprefix=self.global_keyprefix)


class Transport(redis.Transport):
    """The transport; Celery takes it for Redis."""

    Channel = Channel
