"""The URL guard: what may be connected to, and that nothing gets around it."""

import base64
import socket
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from orchestrator import errors
from orchestrator.core import states
from tests.support import httpserver
from tests.unit.worker.data.conftest import Fails
from worker.data import urls


@pytest.fixture
def guarded() -> Iterator[urls.Session]:
    with urls.Session(private_hosts_allowed=False, timeout=(60, 60)) as session:
        yield session


@pytest.fixture
def free() -> Iterator[urls.Session]:
    with urls.Session(private_hosts_allowed=True, timeout=(60, 60)) as session:
        yield session


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_pass(address: str) -> None:
    assert urls.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # cloud metadata
        "100.64.0.1",  # carrier-grade NAT
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "224.0.0.1",  # multicast
        "255.255.255.255",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",  # IPv4-mapped
        "64:ff9b::7f00:1",  # NAT64
        "2002:7f00:1::",  # 6to4
        "not an address",
    ],
)
def test_other_addresses_do_not(address: str) -> None:
    assert not urls.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://host:0/",
        "http://host:99999/",
        "http://host:port/",
        "http://[::1/",
        "http://ho st/",
        "http://host\\@other/",
        "http://host/\r\nX: y",
        "http://host/\x7f",
    ],
)
def test_what_is_no_download_url_is_refused(url: str, fails: Fails) -> None:
    with fails("is no URL that can be downloaded"):
        urls.check(url)


@hypothesis.given(strategies.text(max_size=60).map(lambda text: f"http://{text}"))
def test_the_check_raises_nothing_but_our_own_error(url: str) -> None:
    reason = None
    try:
        urls.check(url)
    except errors.StageFailed as refused:
        reason = refused.reason
    assert reason in {None, states.Reason.BAD_INPUT}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
def test_private_hosts_are_refused_however_they_are_written(
    guarded: urls.Session, server: httpserver.Server, host: str, fails: Fails
) -> None:
    server.on("/", httpserver.Reply())
    with fails("is not on the public internet"):
        guarded.get(server.url("/", host=host), headers={})
    assert not server.requests


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    guarded: urls.Session, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    answers: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: answers)
    with fails("10.0.0.1"):
        guarded.get("http://host.example/", headers={})


def test_the_address_that_was_checked_is_the_one_connected_to(
    guarded: urls.Session, server: httpserver.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *args: Any, **options: Any) -> Any:
        # A literal address is looked up again when it is connected to; a name must not be.
        asked.append(host)
        return real("127.0.0.1" if host == "host.example" else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(urls, "is_public", lambda address: address == "127.0.0.1")
    server.on("/", httpserver.Reply(body=b"here"))
    with guarded.get(server.url("/", host="host.example"), headers={}) as response:
        assert response.content == b"here"
    assert asked.count("host.example") == 1


def test_a_redirect_to_a_private_address_is_refused(
    guarded: urls.Session, server: httpserver.Server, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(urls, "is_public", lambda address: address == "127.0.0.1")
    server.on("/", httpserver.Reply(status=302, headers={"Location": "http://[::1]:1/secret"}))
    with fails("Its address is ::1"):
        guarded.get(server.url("/"), headers={})


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://host/", "http://[oops/"])
def test_a_redirect_to_another_scheme_is_refused(
    free: urls.Session, server: httpserver.Server, location: str, fails: Fails
) -> None:
    server.on("/", httpserver.Reply(status=301, headers={"Location": location}))
    with fails("is no URL that can be downloaded"):
        free.get(server.url("/"), headers={})


def test_the_target_of_a_redirect_is_checked_like_the_first_url(
    free: urls.Session, server: httpserver.Server, fails: Fails
) -> None:
    server.on("/", httpserver.Reply(status=301, headers={"Location": "/a\\b"}))
    with fails("is no URL that can be downloaded"):
        free.get(server.url("/"), headers={})
    assert [seen.path for seen in server.requests] == ["/"]


def test_redirects_are_followed_five_times(free: urls.Session, server: httpserver.Server, fails: Fails) -> None:
    for step in range(6):
        server.on(f"/{step}", httpserver.Reply(status=307, headers={"Location": f"/{step + 1}"}))
    server.on("/6", httpserver.Reply(body=b"end"))
    with free.get(server.url("/1"), headers={}) as response:
        assert response.content == b"end"
    with fails("redirects again"):
        free.get(server.url("/0"), headers={})


def test_a_redirect_loop_ends(free: urls.Session, server: httpserver.Server, fails: Fails) -> None:
    server.on("/", httpserver.Reply(status=302, headers={"Location": "/"}))
    with fails("in a circle"):
        free.get(server.url("/"), headers={})
    assert len(server.requests) == urls.MAX_REDIRECTS + 1


def test_the_body_of_a_redirect_is_not_read(free: urls.Session, server: httpserver.Server) -> None:
    server.on("/", httpserver.Reply(status=302, headers={"Location": "/end"}, body=bytes(10_000), endless=True))
    server.on("/end", httpserver.Reply(body=b"end"))
    with free.get(server.url("/"), headers={}) as response:
        assert response.content == b"end"


def test_credentials_go_to_their_own_origin_only(free: urls.Session, server: httpserver.Server) -> None:
    with httpserver.Server() as other:
        other.on("/there", httpserver.Reply(body=b"x"))
        server.on("/", httpserver.Reply(status=302, headers={"Location": "/here"}))
        server.on("/here", httpserver.Reply(status=302, headers={"Location": other.url("/there")}))
        with free.get(f"http://user:s3cret@127.0.0.1:{server.port}/", headers={}) as response:
            assert response.status_code == 200
        expected = "Basic " + base64.b64encode(b"user:s3cret").decode()
        assert [seen.headers.get("authorization") for seen in server.requests] == [expected, expected]
        assert "authorization" not in other.requests[0].headers
