"""Ringing from a process of its own: its client library is imported there beside SQLAlchemy, by another core."""

import functools
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from orchestrator import config, errors, failpoints
from orchestrator.core.states import Stage

#: Rings for a stage; returns why that could not be done. The reconciler rings again in any case.
Ring = Callable[[Stage], errors.BrokerUnavailable | None]

#: Seconds in which a broker is heard from, or said to be away.
PATIENCE = 4


def ring(settings: config.Settings, stage: Stage) -> errors.BrokerUnavailable | None:
    """Ring for a stage from this process."""
    from orchestrator.queue import dispatch  # noqa: PLC0415 - redis costs 0.1 s, and nothing before this needs it

    try:
        dispatch.ring(settings, stage)
    except errors.BrokerUnavailable as error:
        return error
    return None


@contextmanager
def prepared(settings: config.Settings) -> Iterator[Ring]:
    """Fork a process that imports the client library while this one goes on, and yield what makes it ring.

    For a command's beginning: the process that forks must have one thread only.
    """
    import asyncio  # noqa: F401, PLC0415 - by all of redis and of SQLAlchemy: once here, not once in each process

    ours, theirs = socket.socketpair()
    failpoints.reach("bell.fork")
    pid = os.fork()
    if pid == 0:
        ours.close()  # or the end of a command that is killed would never be seen
        _become_bell(settings, theirs)
    theirs.close()
    try:
        yield functools.partial(_ask, ours)
    finally:
        ours.close()
        os.kill(pid, signal.SIGKILL)  # it has rung, or nobody wants it to
        os.waitpid(pid, 0)


def _become_bell(settings: config.Settings, asker: socket.socket) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
        from orchestrator.queue import dispatch  # noqa: F401, PLC0415 - the import that takes the time

        away = ring(settings, Stage(asker.recv(64).decode()))
        failpoints.reach("bell.answer")
        asker.sendall(json.dumps({} if away is None else {"why": away.why, "hint": away.hint}).encode())
    finally:
        os._exit(0)


def _ask(bell: socket.socket, stage: Stage) -> errors.BrokerUnavailable | None:
    bell.settimeout(PATIENCE)
    try:
        failpoints.reach("bell.ask")
        bell.sendall(stage.encode())
        said = json.loads(bell.recv(65536))
    except (OSError, ValueError):
        return errors.BrokerUnavailable(why=f"It did not answer within {PATIENCE} seconds.")
    return errors.BrokerUnavailable(**said) if said else None
