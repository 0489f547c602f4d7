"""What anybody may push onto a queue: messages that Celery would run, refuse, keep for ever or die of."""

import base64
import json
import uuid
import zlib
from typing import Any

#: A pickle that runs `touch` on the path put into it.
_PICKLE = b"cos\nsystem\n(S'touch %s'\ntR."

_BOMB_BYTES = 50_000_000
_BIG_BYTES = 10_000_000


def cases(canary: str) -> dict[str, bytes]:
    """Return what is pushed, by name; where one of them is run, there is a file `canary` afterwards."""
    return _orders(canary) | _odd_fields() | _no_doorbells()


def _orders(canary: str) -> dict[str, bytes]:
    """Return what is said again, or asks for more than a doorbell may."""
    pickled = base64.b64encode(_PICKLE % canary.encode()).decode()
    replayed = _message()
    return {
        "replayed": replayed,
        "replayed again": replayed,
        "pickle": _message(body=pickled, **{"content-type": "application/x-python-serialize"}),
        "pickle as json": _message(body=pickled),
        "bare pickle": _PICKLE % canary.encode(),
        "yaml": _message(
            body=_encoded(f"!!python/object/apply:os.system ['touch {canary}']"),
            **{"content-type": "application/x-yaml"},
        ),
        "unknown task": _message(headers={"task": "os.system"}, body=_body([f"touch {canary}"])),
        "foreign task": _message(headers={"task": "celery.backend_cleanup"}),
        "forged arguments": _message(body=_body([1, 2], {"job": "00000000", "command": f"touch {canary}"})),
        "arguments of another shape": _message(body=_encoded("[5, 6, 7]")),
        "body of a number": _message(body=_encoded("5")),
        "chain of calls": _message(body=_body([], {}, {"chain": [{"task": "os.system", "args": [f"touch {canary}"]}]})),
        "callback onto itself": _message(body=_body([], {}, {"callbacks": [{"task": "orch.train.v1", "options": {}}]})),
    }


def _odd_fields() -> dict[str, bytes]:
    """Return doorbells of which one part is not what it should be."""
    return {
        "id is a list": _message(headers={"id": [1]}),
        "no id": _message(headers={"id": None}),
        "in a thousand years": _message(headers={"eta": "3026-01-01T00:00:00"}),
        "expired": _message(headers={"expires": "1999-01-01T00:00:00"}),
        "time limit of nothing": _message(headers={"timelimit": [0.001, 0.001]}),
        "time limit of words": _message(headers={"timelimit": "abc"}),
        "stamps of a number": _message(headers={"stamped_headers": 5}),
        "answer to a queue": _message(properties={"reply_to": "orch-train", "correlation_id": "x"}),
        "tag is a list": _message(properties={"delivery_tag": [1]}),
        "no delivery": _message(properties={"delivery_info": 5}),
        "unknown encoding": _message(properties={"body_encoding": "rot13"}),
        "not base64": _message(body="%%%"),
        "unknown charset": _message(**{"content-encoding": "ebcdic-99"}),
        "type is a list": _message(**{"content-type": [1]}),
        "headers are text": _message(headers="abc"),
        "no headers": _message(headers=None),
        "no properties": _message(properties=None),
    }


def _no_doorbells() -> dict[str, bytes]:
    """Return what is of another kind, or no message at all."""
    return {
        "forged shutdown": json.dumps({"method": "shutdown", "arguments": {}, "destination": None}).encode(),
        "forged pool restart": _message(headers={"task": "celery.pidbox"}, body=_body([], {"method": "pool_restart"})),
        "not json": b"garbage \x00\xff\xfe",
        "list": b"[1, 2]",
        "number": b"5",
        "nothing": b"",
        "deep": b"[" * 100_000,
        "type of kombu's own": json.dumps({"__type__": "datetime", "__value__": "x"}).encode(),
        "bomb": _message(
            headers={"compression": "application/x-gzip"},
            body=base64.b64encode(zlib.compress(bytes(_BOMB_BYTES))).decode(),
        ),
    }


def big() -> dict[str, bytes]:
    """Return messages of ten megabytes."""
    return {"big garbage": b"x" * _BIG_BYTES, "big argument": _message(body=_body(["x" * _BIG_BYTES]))}


def _message(*, headers: Any = (), properties: Any = (), **parts: Any) -> bytes:
    """Return a genuine doorbell with parts of it replaced."""
    name = str(uuid.uuid4())
    own_headers = {"lang": "py", "task": "orch.train.v1", "id": name, "root_id": name, "retries": 0}
    own_properties = {
        "correlation_id": name,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "orch-train"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    message = {
        "body": _body(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**own_headers, **dict(headers)} if isinstance(headers, dict | tuple) else headers,
        "properties": {**own_properties, **dict(properties)} if isinstance(properties, dict | tuple) else properties,
        **parts,
    }
    return json.dumps(message).encode()


def _body(args: Any = (), kwargs: Any = None, embed: Any = None) -> str:
    return _encoded(json.dumps([list(args), kwargs or {}, embed or {}]))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
