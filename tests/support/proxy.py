"""A proxy between clients and one server that mistreats what goes through, as told while connections live.

with proxy.Proxy(("127.0.0.1", 5432)) as between:
    between.port                                            # clients connect to 127.0.0.1 here
    between.to_client.rule = proxy.Rule(cut_at=b"COMMIT")   # the answer to the next COMMIT is lost
    between.silence()                                       # connects, and nothing arrives until `heal()`
    between.refuse()                                        # nobody listens, and what was connected is reset

Either side may be a unix socket. With `tls` clients speak TLS to the proxy, and it speaks plainly to the server.
"""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")

Place = tuple[str, int] | Path

_PIECE_BYTES = 65_536
_LOOK_SECONDS = 0.01
_REPLY_SECONDS = 60
#: Rounds of the loop in which an accepted connection is a task, then a transport, then a task of ours, then closed.
_ROUNDS = 10
#: SO_LINGER with no time to linger: a close sends a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to the bytes of one direction; the defaults let them pass. Counts begin when the rule is set."""

    delay: float = 0.0  #: seconds that each piece waits
    hold: bool = False  #: nothing arrives while this is the rule; then all of it does, as when a network comes back
    swallow: bool = False  #: nothing arrives, ever
    cut_after: int | None = None  #: bytes that arrive on a connection before it is cut; 0 cuts each new one at once
    cut_at: bytes | None = None  #: the connection is cut before the last byte of this arrives
    cut_behind: bytes | None = None  #: the connection is cut when this has arrived
    reset: bool = True  #: a cut is a reset, else an orderly end
    once: bool = True  #: the first cut uses the rule up


PASS = Rule()
HOLD = Rule(hold=True)


class Lane:
    """One direction, over all connections."""

    def __init__(self) -> None:
        self.rule = PASS
        self.cuts = 0
        self.swallowed = 0  #: bytes

    async def opened(self) -> Rule:
        """Return the rule in force once it holds nothing back."""
        while self.rule.hold:  # noqa: ASYNC110 - it is set by other threads
            await asyncio.sleep(_LOOK_SECONDS)
        return self.rule

    def cut(self, rule: Rule) -> None:
        """Count a cut."""
        self.cuts += 1
        if rule.once and self.rule is rule:
            self.rule = PASS


class Proxy:
    """The proxy; a context manager. It listens on a free port of 127.0.0.1, or on the unix socket `listen`."""

    def __init__(self, upstream: Place, *, listen: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.to_server = Lane()
        self.to_client = Lane()
        self.accepted = 0  #: connections, over its whole life
        self._upstream = upstream
        self._listen = listen
        self._tls = tls
        self._reserved = socket.socket()  # bound and deaf: no other process gets the port while this one refuses
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._server: asyncio.Server | None = None
        self._live: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._shut())
        self._do(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    @property
    def port(self) -> int:
        return int(self._reserved.getsockname()[1])

    @property
    def live(self) -> int:
        """How many connections there are now."""
        return len(self._live)

    def silence(self) -> None:
        """Accept, and let nothing through, of what is connected neither."""
        self.to_server.rule = self.to_client.rule = HOLD

    def refuse(self) -> None:
        """Reset what is connected, and refuse what comes."""
        self._do(self._shut())

    def reset(self) -> None:
        """Reset what is connected; what comes is welcome."""
        self._do(self._reset())

    def heal(self) -> None:
        """Let everything through again."""
        self.to_server.rule = self.to_client.rule = PASS
        self._do(self._open())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_REPLY_SECONDS)

    async def _open(self) -> None:
        if self._server is not None:
            return
        if self._listen is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        else:
            self._server = await asyncio.start_unix_server(self._accept, self._listen, ssl=self._tls)

    async def _shut(self) -> None:
        if self._server is not None:
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(_ROUNDS):  # a server that is closed gives what it has accepted no transport
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        live = list(self._live)
        for connection in live:
            connection.cancel()
        await asyncio.gather(*live, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = self._loop.create_task(self._carry(reader, writer))
        self._live.add(connection)
        connection.add_done_callback(self._live.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        lanes: list[asyncio.Task[bool]] = []
        reset = True  # of what is cancelled, and where no server answers
        try:
            await self.to_server.opened()
            from_server, server = await self._connect()
            ends.append(server)
            lanes += [
                self._loop.create_task(_pump(self.to_server, reader, server)),
                self._loop.create_task(_pump(self.to_client, from_server, writer)),
            ]
            ended, _ = await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
            reset = any(lane.exception() is not None or lane.result() for lane in ended)
        except OSError:
            pass
        finally:
            for lane in lanes:
                lane.cancel()
            for end in ends:
                _end(end, reset=reset)
            await asyncio.gather(*lanes, *(end.wait_closed() for end in ends), return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, Path):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection(*self._upstream)


class _Scan:
    """How far a connection has come under one rule."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._passed = 0
        self._tail = b""

    def take(self, piece: bytes) -> tuple[bytes, bool]:
        """Return what of the piece arrives, and whether the connection is cut then."""
        ends = [end for end in (self._by_count(), self._by_pattern(piece)) if end is not None and end <= len(piece)]
        arrives = piece[: min(ends, default=len(piece))]
        self._passed += len(arrives)
        return arrives, bool(ends)

    def _by_count(self) -> int | None:
        return None if self.rule.cut_after is None else self.rule.cut_after - self._passed

    def _by_pattern(self, piece: bytes) -> int | None:
        pattern = self.rule.cut_at or self.rule.cut_behind
        if pattern is None:
            return None
        seen = self._tail + piece
        at = seen.find(pattern)
        before = len(self._tail)
        self._tail = seen[-(len(pattern) - 1) :] if len(pattern) > 1 else b""
        if at < 0:
            return None
        return max(0, at - before) if self.rule.cut_at else at + len(pattern) - before


async def _pump(lane: Lane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Carry bytes until they end or a rule cuts; return whether what is left is to be reset."""
    scan = _Scan(await lane.opened())
    piece = b""  # taken like any other: a rule may cut before the first byte
    while True:
        rule = await lane.opened()
        if rule is not scan.rule:
            scan = _Scan(rule)
        await asyncio.sleep(rule.delay if piece else 0)
        arrives, cut = scan.take(piece)
        if rule.swallow:
            lane.swallowed += len(arrives)
        else:
            writer.write(arrives)
            await writer.drain()
        if cut:
            lane.cut(rule)
            return rule.reset
        piece = await reader.read(_PIECE_BYTES)
        if not piece:
            await lane.opened()  # a silent network does not tell of an end either
            return False


async def _end_all() -> None:
    """End what a connection that has just been accepted began, and let it close its socket."""
    for _ in range(_ROUNDS):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if not reset:
        writer.close()
        return
    with suppress(OSError, AttributeError):  # it has gone already; TLS then has no socket any more
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
