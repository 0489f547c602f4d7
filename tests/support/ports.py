"""TCP ports of loopback for servers that are told which one to take."""

import socket


def reserved() -> socket.socket:
    """Return a socket that is bound and deaf: until it is closed, nobody is given its port who does not ask for it.

    A server that sets SO_REUSEADDR, as Valkey and PostgreSQL do, may listen there meanwhile, again and again.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def number(held: socket.socket) -> int:
    """Return the port of a socket."""
    return int(held.getsockname()[1])
