"""The URL guard: which addresses a download may connect to, and requests that cannot get around it.

The check sits where the socket is opened. A name is resolved once, every address it has is checked, and one of the
checked addresses is connected to: a second answer of the name server (DNS rebinding) is never asked for. Each
redirect opens its connection in the same way. TLS still verifies the name of the URL.
"""

import ipaddress
import socket
from typing import Any, Self, cast
from urllib.parse import urljoin, urlsplit

import requests
import requests.adapters
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import urllib3.util.connection

from orchestrator import failpoints
from orchestrator.core import masking, weburl
from worker.refusals import refused

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
#: IPv6 addresses that carry an IPv4 one to a translator: https://www.rfc-editor.org/rfc/rfc6052#section-2.1
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check(url: str) -> None:
    """Check a URL's text.

    Raises:
        StageFailed: bad_input, unless it is an http or https URL with a host and a legal port.

    """
    why = weburl.fault(url)
    if why is not None:
        raise refused(f"{masking.value(url)} is no URL that can be downloaded.", why=why, hint=weburl.HINT)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also the IPv4 address that an IPv6 one carries."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or translated or ip
    return ip.is_global and not ip.is_multicast


class Session:
    """Guarded requests. Where private hosts are allowed, proxies of the environment are used as well."""

    def __init__(self, *, private_hosts_allowed: bool, timeout: tuple[float, float]) -> None:
        self._timeout = timeout  # to connect, between two reads; seconds
        self._session = _OneHop()
        self._session.trust_env = private_hosts_allowed
        if not private_hosts_allowed:
            for scheme in _PORTS:
                self._session.mount(f"{scheme}://", _GuardedAdapter())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, url: str, *, headers: dict[str, str]) -> requests.Response:
        """Return the streamed response, up to five redirects further on; the caller closes it.

        Raises:
            StageFailed: bad_input: a URL or address that is not allowed, or too many redirects.
            OSError: the network's and requests' own errors.

        """
        account = _account(url)
        origin = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            check(url)
            response = self._send(url, headers, account if _origin(url) == origin else None)
            if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            url = _target(url, response.headers["Location"])
        raise refused(
            f"{masking.url(url)} was reached after {MAX_REDIRECTS} redirects, and redirects again.",
            why="The server most likely sends the download in a circle.",
            hint="Open the URL in a browser and give the address where it ends.",
        )

    def post(self, url: str, *, body: bytes, headers: dict[str, str]) -> int:
        """Return the status that a POST is answered with; what it says is not read, and no redirect is followed.

        Raises:
            StageFailed: bad_input: a URL or address that is not allowed.
            OSError: the network's and requests' own errors.

        """
        check(url)
        failpoints.reach("notice.send")
        response = self._session.post(
            url, data=body, headers=headers, auth=_account(url) or _no_account, timeout=self._timeout, stream=True,
            allow_redirects=False,
        )  # fmt: skip
        response.close()
        return response.status_code

    def _send(self, url: str, headers: dict[str, str], account: tuple[str, str] | None) -> requests.Response:
        try:
            failpoints.reach("download.connect")
            # An explicit auth, even an empty one, keeps requests from taking another from .netrc.
            return self._session.get(
                url, headers=headers, auth=account or _no_account, timeout=self._timeout, stream=True,
                allow_redirects=False,
            )  # fmt: skip
        except ValueError as error:  # requests' and urllib3's errors about URLs, and Unicode's, are all of this kind
            raise refused(
                f"{masking.value(url)} is no URL that can be downloaded.",
                why="Its host name cannot be one.",
                hint="Check the URL.",
            ) from error


class _OneHop(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Also where it follows none, requests prepares the next request: it would read an endless body to its end.
        del resp
        return None


class _GuardedConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _GuardedTlsConnection(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _GuardedPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _GuardedConnection


class _GuardedTlsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _GuardedTlsConnection


class _GuardedAdapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        manager = cast("Any", self).poolmanager
        manager.pool_classes_by_scheme = {"http": _GuardedPool, "https": _GuardedTlsPool}


def _connect(connection: urllib3.connection.HTTPConnection) -> socket.socket:
    """Resolve, check every address, then connect to the first that answers of exactly these."""
    try:
        found = socket.getaddrinfo(connection._dns_host, connection.port, type=socket.SOCK_STREAM)  # noqa: SLF001 - where urllib3 keeps the name
    except socket.gaierror as error:
        raise urllib3.exceptions.NameResolutionError(connection.host, connection, error) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    private = [address for address in addresses if not is_public(address)]
    if private:
        raise refused(
            f"The host {connection.host} is not on the public internet.",
            why=f"Its address is {private[0]}.",
            hint="Set ORCH_ALLOW_PRIVATE_HOSTS=1 on the worker if jobs may download from its own network.",
        )
    failed: OSError | None = None
    for address in addresses:
        try:
            return urllib3.util.connection.create_connection(
                (address, connection.port), connection.timeout, socket_options=connection.socket_options
            )
        except OSError as error:
            failed = error
    raise urllib3.exceptions.NewConnectionError(connection, f"no address answers: {failed}") from failed


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location  # refused by `check` in the next round


def _account(url: str) -> tuple[str, str] | None:
    try:
        account = requests.utils.get_auth_from_url(url)
    except ValueError:
        return None
    return account if any(account) else None


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None


def _no_account(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
