"""Downloads from servers that refuse, hang, lie, or cannot prove who they are."""

import email.utils
import gzip
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.core import states
from tests.support import httpserver
from tests.unit.worker.data.conftest import BODY, SHA256, URL, Fails, Fetch, left
from worker.data import download

ONCE = download.Policy(max_bytes=10**6, max_seconds=10, private_hosts_allowed=True, tries=1)

Reply = httpserver.Reply


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_definite_refusal_is_not_retried(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, status: int, fails: Fails
) -> None:
    server.on(URL, Reply(status=status))
    with fails(f"The server answers {status}"):
        fetch()
    assert len(server.requests) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_refusal_is_retried(server: httpserver.Server, fetch: Fetch, status: int) -> None:
    server.on(URL, Reply(status=status), Reply(status=status), Reply(body=BODY))
    assert fetch().sha256 == SHA256
    assert len(server.requests) == 3


def test_retries_are_bounded(server: httpserver.Server, fetch: Fetch, fails: Fails) -> None:
    server.on(URL, Reply(status=503))
    with fails("The server answers 503", reason=states.Reason.UNREACHABLE):
        fetch(tries=3)
    assert len(server.requests) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: httpserver.Server, fetch: Fetch, form: str) -> None:
    began = time.monotonic()
    asked = {"seconds": "1", "date": email.utils.formatdate(time.time() + 2, usegmt=True)}[form]
    server.on(URL, Reply(status=429, headers={"Retry-After": asked}), Reply(body=BODY))
    assert fetch().path.exists()
    assert time.monotonic() - began >= 0.9


def test_a_long_retry_after_is_left_to_the_queue(server: httpserver.Server, fetch: Fetch, fails: Fails) -> None:
    server.on(URL, Reply(status=503, headers={"Retry-After": "3600"}))
    with fails("asks to wait 3600 seconds", reason=states.Reason.UNREACHABLE):
        fetch()


def test_a_server_that_never_answers_is_unreachable(server: httpserver.Server, fetch: Fetch, fails: Fails) -> None:
    server.on(URL, Reply(hang=True))
    with fails("It stopped sending", reason=states.Reason.UNREACHABLE):
        fetch(read_timeout=0.1, tries=2)


def test_a_closed_port_is_unreachable_and_shows_no_secret(
    tmp_path: Path,
) -> None:
    url = f"http://user:s3cret@127.0.0.1:1{URL}?token=s3cret"
    policy = download.Policy(max_bytes=1, max_seconds=1, private_hosts_allowed=True, tries=1)
    with pytest.raises(errors.StageFailed) as caught:
        download.fetch(url, folder=tmp_path, name="x", sha256=None, policy=policy, report=lambda *_: None)
    assert caught.value.reason == states.Reason.UNREACHABLE
    assert caught.value.why == "Nothing answers at its address."
    assert "s3cret" not in f"{caught.value} {vars(caught.value)}"


def test_a_slow_drip_is_given_up(server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails) -> None:
    server.on(URL, Reply(body=BODY, rate=500))
    with fails("sends less than 5000 bytes a second", reason=states.Reason.UNREACHABLE):
        fetch(slowest=5000, window=0.2, tries=2)
    assert (tmp_path / "set.part").stat().st_size > 0  # kept for a better day


def answer(*headers: str, body: bytes = BODY, status: str = "200 OK") -> Reply:
    """Return an answer of exactly these lines."""
    return Reply(raw="\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode("latin-1") + body)


FLOOD = tuple(f"X-{number}: y" for number in range(500))
HUGE = "9" * 5000

#: Answers that no server should give, and what is said of them.
BAD_ANSWERS = [
    ("too many headers", answer(*FLOOD), "The connection broke off"),
    ("a header too long", answer("X: " + "y" * 100_000), "The connection broke off"),
    ("no answer at all", Reply(raw=b""), "The connection broke off"),
    ("another protocol", Reply(raw=b"SSH-2.0-OpenSSH_9.9\r\n"), "The connection broke off"),
    ("chunks of no size", answer("Transfer-Encoding: chunked", body=b"xyz\r\n"), "The connection broke off"),
    ("a chunk that ends early", answer("Transfer-Encoding: chunked", body=b"ffff\r\nabc"), "The connection broke off"),
    ("longer than it is", answer("Content-Length: 999999"), "The connection broke off"),
    ("a wait without end", answer(f"Retry-After: {HUGE}", status="503 Busy", body=b""), "asks to wait"),
    ("a wait that is no time", answer("Retry-After: soon", status="503 Busy", body=b""), "The server answers 503"),
]


@pytest.mark.parametrize(("reply", "words"), [row[1:] for row in BAD_ANSWERS], ids=[row[0] for row in BAD_ANSWERS])
def test_a_bad_answer_makes_a_server_unreachable(
    server: httpserver.Server, fetch: Fetch, reply: Reply, words: str, fails: Fails
) -> None:
    server.on(URL, reply)
    with fails(words, reason=states.Reason.UNREACHABLE):
        fetch(tries=2)


@pytest.mark.parametrize("length", ["-5", HUGE, "many", "1e3", "\xb2"])
def test_a_length_that_is_none_is_not_believed(server: httpserver.Server, fetch: Fetch, length: str) -> None:
    server.on(URL, answer(f"Content-Length: {length}", "Connection: close"))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY


def test_a_length_that_is_too_short_is_found_by_the_digest(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, fails: Fails
) -> None:
    server.on(URL, answer("Content-Length: 1000"))
    with fails("is not the file that was asked for"):
        fetch(sha256=SHA256)
    assert left(tmp_path) == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "X-Unheard-Of"])
def test_a_body_that_was_packed_again_is_refused(
    server: httpserver.Server, fetch: Fetch, tmp_path: Path, encoding: str, fails: Fails
) -> None:
    server.on(URL, Reply(body=gzip.compress(BODY), headers={"Content-Encoding": encoding}))
    with fails("packs the archive a second time"):
        fetch()
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "stated", [f"bytes {HUGE}-{HUGE}/{HUGE}", f"bytes 120000-299999/{HUGE}", "bytes 120000-299999/400000", "bytes */*"]
)
def test_a_range_that_is_a_lie_begins_anew(server: httpserver.Server, fetch: Fetch, stated: str) -> None:
    server.on(URL, Reply(body=BODY, cut_after=120_000), Reply(body=BODY, content_range=stated), Reply(body=BODY))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY
    assert "range" not in server.requests[-1].headers


def test_a_part_with_more_than_was_said_begins_anew(server: httpserver.Server, fetch: Fetch) -> None:
    said = ('ETag: "1"', "Content-Range: bytes 120000-299999/300000")
    longer = answer(*said, status="206 Partial Content", body=BODY[120_000:] + b"x")
    server.on(URL, Reply(body=BODY, cut_after=120_000), longer, Reply(body=BODY))
    assert fetch(sha256=SHA256).path.read_bytes() == BODY


def test_the_server_s_own_words_are_not_repeated(server: httpserver.Server, fetch: Fetch) -> None:
    server.on(URL, answer(status="404 \x1b[2Jcanary", body=b""))
    with pytest.raises(errors.StageFailed) as refused:
        fetch()
    assert refused.value.why == "The server answers 404 Not Found."


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[int]:
    """The port of a server whose certificate nobody has signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    http = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    http.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that turns away is no news
    serving = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    yield http.server_address[1]
    http.shutdown()
    serving.join()
    http.server_close()


def test_a_certificate_that_nobody_signed_is_not_believed(tls: int, tmp_path: Path, fails: Fails) -> None:
    with fails("Its TLS certificate cannot be verified", reason=states.Reason.UNREACHABLE):
        download.fetch(
            f"https://localhost:{tls}/", folder=tmp_path, name="x", sha256=None, policy=ONCE, report=lambda *_: None
        )


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(
    server: httpserver.Server, tmp_path: Path, fails: Fails
) -> None:
    url = server.url("/x").replace("http:", "https:")
    with fails("It does not speak TLS as it should", reason=states.Reason.UNREACHABLE):
        download.fetch(url, folder=tmp_path, name="x", sha256=None, policy=ONCE, report=lambda *_: None)
    assert not server.asked("/x")
