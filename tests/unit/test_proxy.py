"""What the proxy of the fault tests does to a server that answers each line with the same line in capitals."""

import gc
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from tests.support import proxy
from tests.support.waiting import until

#: Until a socket gives up: a slow machine, with other tests beside this one, answers in time.
_SECONDS = 60


class Capitals(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        try:
            for line in self.rfile:
                self.wfile.write(line.upper())
        except ConnectionError:
            return


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def server() -> Iterator[proxy.Place]:
    with Server(("127.0.0.1", 0), Capitals) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield "127.0.0.1", int(listening.server_address[1])
        listening.shutdown()
        thread.join()


@pytest.fixture
def between(server: proxy.Place) -> Iterator[proxy.Proxy]:
    with proxy.Proxy(server) as standing:
        yield standing


@pytest.fixture
def client(between: proxy.Proxy) -> Iterator[socket.socket]:
    with _connected(between) as connected:
        yield connected


def _connected(between: proxy.Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", between.port), timeout=_SECONDS)


def _all(client: socket.socket) -> bytes:
    """Return what comes until the end, b"reset" behind it where that is a reset."""
    got = b""
    try:
        while piece := client.recv(4096):
            got += piece
    except ConnectionResetError:
        return got + b"reset"
    return got


def _is_reset_at_once(between: proxy.Proxy) -> None:
    with pytest.raises(ConnectionResetError), _connected(between) as client:  # it may come before connect has returned
        client.recv(64)


def test_bytes_pass_both_ways_and_an_end_passes_too(between: proxy.Proxy, client: socket.socket) -> None:
    client.sendall(b"one\n")
    assert client.recv(64) == b"ONE\n"
    assert between.live == 1
    client.close()
    until(lambda: not between.live)
    assert between.accepted == 1


def test_silence_falls_on_live_connections_and_what_was_sent_arrives_when_it_ends(
    between: proxy.Proxy, client: socket.socket
) -> None:
    client.sendall(b"one\n")
    assert client.recv(64) == b"ONE\n"
    between.silence()
    client.sendall(b"two\n")
    with _connected(between) as late:
        late.sendall(b"three\n")
        for silent in (client, late):
            silent.settimeout(0.2)
            with pytest.raises(TimeoutError):
                silent.recv(64)
            silent.settimeout(_SECONDS)
        between.heal()
        assert client.recv(64) == b"TWO\n"
        assert late.recv(64) == b"THREE\n"


def test_what_is_swallowed_never_arrives(between: proxy.Proxy, client: socket.socket) -> None:
    between.to_client.rule = proxy.Rule(swallow=True)
    client.sendall(b"one\n")
    until(lambda: between.to_client.swallowed == len(b"ONE\n"))
    between.heal()
    client.sendall(b"two\n")
    assert client.recv(64) == b"TWO\n"


def test_each_piece_is_delayed(between: proxy.Proxy, client: socket.socket) -> None:
    between.to_server.rule = proxy.Rule(delay=0.3)
    began = time.monotonic()
    client.sendall(b"one\n")
    assert client.recv(64) == b"ONE\n"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    ("rule", "arrives"),
    [
        ({"cut_after": 5}, b"ONE\nT"),
        ({"cut_at": b"WO"}, b"ONE\nT"),
        ({"cut_behind": b"WO"}, b"ONE\nTWO"),
        ({"cut_behind": b"O"}, b"O"),
    ],
)
def test_an_answer_is_cut_where_the_rule_says(
    between: proxy.Proxy, client: socket.socket, rule: dict[str, int | bytes], arrives: bytes, *, reset: bool
) -> None:
    between.to_client.rule = proxy.Rule(reset=reset, **rule)  # type: ignore[arg-type]  # words of the table
    client.sendall(b"one\ntwo\nthree\n")
    assert _all(client) == arrives + (b"reset" if reset else b"")
    assert between.to_client.cuts == 1


def test_a_pattern_is_found_across_pieces_and_never_arrives_whole(between: proxy.Proxy, client: socket.socket) -> None:
    between.to_client.rule = proxy.Rule(cut_at=b"ONE\nTWO")
    client.sendall(b"one\n")
    assert client.recv(64) == b"ONE\n"
    client.sendall(b"two\n")
    assert _all(client) == b"reset"


def test_a_cut_is_used_up_unless_it_is_to_last(between: proxy.Proxy) -> None:
    between.to_server.rule = proxy.Rule(cut_after=0)
    _is_reset_at_once(between)
    with _connected(between) as second:
        second.sendall(b"two\n")
        assert second.recv(64) == b"TWO\n"
    between.to_server.rule = proxy.Rule(cut_after=0, once=False)
    for _ in range(2):
        _is_reset_at_once(between)
    assert between.to_server.cuts == 3


def test_refused_and_healed_on_the_same_port(between: proxy.Proxy, client: socket.socket) -> None:
    client.sendall(b"one\n")
    assert client.recv(64) == b"ONE\n"
    between.refuse()
    assert _all(client) == b"reset"
    with pytest.raises(ConnectionRefusedError):
        _connected(between)
    between.heal()
    with _connected(between) as again:
        again.sendall(b"two\n")
        assert again.recv(64) == b"TWO\n"


def test_what_is_connected_is_reset_and_what_comes_is_welcome(between: proxy.Proxy, client: socket.socket) -> None:
    client.sendall(b"one\n")
    assert client.recv(64) == b"ONE\n"
    between.reset()
    assert _all(client) == b"reset"
    with _connected(between) as again:
        again.sendall(b"two\n")
        assert again.recv(64) == b"TWO\n"


def test_a_server_that_is_away_resets(tmp_path: Path) -> None:
    with proxy.Proxy(tmp_path / "nobody") as between:
        _is_reset_at_once(between)


def test_both_sides_may_be_unix_sockets(server: proxy.Place, tmp_path: Path) -> None:
    with proxy.Proxy(server, listen=tmp_path / "a"), proxy.Proxy(tmp_path / "a", listen=tmp_path / "b") as outer:
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(tmp_path / "b"))
            client.sendall(b"one\n")
            assert client.recv(64) == b"ONE\n"
        outer.refuse()
        with closing(socket.socket(socket.AF_UNIX)) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(tmp_path / "b"))


def test_what_is_accepted_at_the_end_leaves_no_socket(server: proxy.Place) -> None:
    gc.collect()  # what earlier tests have left counts for neither
    before = psutil.Process().num_fds()
    for _ in range(20):
        with ExitStack() as clients, proxy.Proxy(server) as standing:
            for _ in range(3):
                clients.enter_context(_connected(standing))
    gc.collect()  # what was left would be found here, and warned of
    until(lambda: psutil.Process().num_fds() <= before)  # threads of the server behind it may just end
