"""A loopback HTTP server for tests that serves bytes with every misbehaviour a download has to survive.

with httpserver.Server() as server:
    server.on("/set.zip", httpserver.Reply(body=data))
    server.url("/set.zip")                                  # http://127.0.0.1:<free port>/set.zip
    server.requests, server.sent("/set.zip")                # what was asked, body bytes that were sent

Several replies for a path are used up in turn; the last one stays.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_CHUNK = 16_384


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a path answers. The defaults are a well-behaved static file."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)  #: sent on top, e.g. Location or Retry-After
    etag: str | None = '"1"'
    ranges: bool = True  #: honour Range (and If-Range); False answers 200 with everything
    content_range: str | None = None  #: a lie to send instead of the true Content-Range of a 206
    range_from: int | None = None  #: answer every Range with the bytes from here on, and say so
    length: bool = True  #: send Content-Length; False ends the body by closing
    cut_after: int | None = None  #: close the connection after so many body bytes
    rate: float | None = None  #: body bytes a second
    endless: bool = False  #: repeat the body for ever, without Content-Length
    raw: bytes | None = None  #: all that is sent, head and body, as it stands here
    hang: bool = False  #: answer nothing until the server is closed
    drip: bool = False  #: begin the head of an answer, and go on with it byte by byte until the server is closed


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request that came in."""

    path: str
    headers: Mapping[str, str]  #: names in lower case
    body: bytes = b""


class Server:
    """The server; a context manager. Threads end with it."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self._replies: dict[str, list[Reply]] = {}
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = False  # so that closing waits for them
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def on(self, path: str, *replies: Reply) -> str:
        """Set how `path` answers from now on; returns its URL."""
        with self._lock:
            self._replies[path] = list(replies)
        return self.url(path)

    def sent(self, path: str) -> int:
        """Return the body bytes sent for `path`, over all requests."""
        with self._lock:
            return self._sent.get(path, 0)

    def asked(self, path: str) -> list[Seen]:
        """Return the requests for `path`, oldest first."""
        return [seen for seen in self.requests if seen.path == path]

    def _next(self, path: str) -> Reply:
        with self._lock:
            replies = self._replies.get(path, [Reply(status=404, body=b"not here")])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def _count(self, path: str, amount: int) -> None:
        with self._lock:
            self._sent[path] = self._sent.get(path, 0) + amount

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                server.requests.append(Seen(path=self.path, headers=headers, body=body))
                try:
                    server._answer(self, server._next(self.path))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815 - the base class's name

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply.hang:
            self._closing.wait()
            request.close_connection = True
            return
        if reply.drip:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self._closing.wait(0.02):
                request.wfile.write(b".")
            request.close_connection = True
            return
        if reply.raw is not None:
            request.wfile.write(reply.raw)
            request.close_connection = True
            return
        start = self._start(request, reply)
        body = reply.body[start:]
        request.send_response(206 if start else reply.status)
        if start:
            true = f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}"
            request.send_header("Content-Range", reply.content_range or true)
        if reply.etag is not None:
            request.send_header("ETag", reply.etag)
        if reply.length and not reply.endless:
            request.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            request.send_header(name, value)
        request.end_headers()
        self._send_body(request, reply, body)

    @staticmethod
    def _start(request: BaseHTTPRequestHandler, reply: Reply) -> int:
        asked = request.headers.get("Range")
        if asked is None or not reply.ranges or reply.status != 200:
            return 0
        condition = request.headers.get("If-Range")
        if condition is not None and condition != reply.etag:
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0]) if reply.range_from is None else reply.range_from

    def _send_body(self, request: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        allowed = len(body) if reply.cut_after is None else reply.cut_after
        size = _CHUNK if reply.rate is None else max(1, int(reply.rate / 50))
        while not self._closing.is_set():
            for offset in range(0, min(len(body), allowed), size):
                piece = body[offset : min(offset + size, allowed)]
                self._count(request.path, len(piece))  # first: whoever has read it may ask at once what was sent
                request.wfile.write(piece)
                if reply.rate is not None and self._closing.wait(len(piece) / reply.rate):
                    break
            if not reply.endless:
                break
        request.close_connection = True
