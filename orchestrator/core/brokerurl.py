"""The broker's URL: what it may say, and how far its server has to prove who it is."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

LIKE = "redis://:password@host:6379/0, rediss://user:password@host:6379/0 or redis+socket:///path"

_TLS_OPTIONS = {"ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_OPTIONS = {"redis": set[str](), "rediss": _TLS_OPTIONS, "redis+socket": {"virtual_host"}}
_CHOICES = {"ssl_cert_reqs": {"required", "none"}, "ssl_check_hostname": {"true", "false"}}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How the server of a `rediss://` URL is checked, and what proves who we are."""

    verify: bool = True  #: its certificate must come from a CA that is trusted here
    check_hostname: bool = True  #: and be made out to the host of the URL
    ca_certs: str | None = None  #: file of the CAs to trust; None: the system's
    certfile: str | None = None  #: our own certificate, for a server that asks for one
    keyfile: str | None = None


def check(url: str) -> None:
    """Raise ValueError where the URL names no broker, with words that show nothing of it."""
    parts = _split(url)
    place = parts and (parts.path if parts.scheme == "redis+socket" else parts.hostname and parts.port != 0)
    if parts is None or parts.scheme not in _OPTIONS or not place:
        raise ValueError(f"it must be like {LIKE}")
    number = parts.path.strip("/")
    if parts.scheme != "redis+socket" and number and not number.isdecimal():
        raise ValueError("the database behind its last / must be a number")
    if ";" in url:  # Celery would take what follows for the URL of another server
        raise ValueError("a ; in it must be written as %3B")
    _check_options(parts)


def _check_options(parts: SplitResult) -> None:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _OPTIONS[parts.scheme]
    if given.keys() - known:
        raise ValueError(f"behind its ? may stand {', '.join(sorted(known)) or f'nothing in {parts.scheme}://'}")
    for name, choices in _CHOICES.items():
        if given.get(name) not in {None, *choices}:
            raise ValueError(f"its {name} must be {' or '.join(sorted(choices))}")
    if not given.get("virtual_host", "0").removeprefix("/").isdecimal():
        raise ValueError("its virtual_host must be the number of a database")
    for name in _FILES:
        if name in given and not _is_readable(Path(given[name])):
            raise ValueError(f"its {name} must be the absolute path of a file that can be read")


def tls(url: str) -> Tls | None:
    """Return how the server is checked, None where TLS is not spoken."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return None
    given = dict(parse_qsl(parts.query))
    verify = given.get("ssl_cert_reqs") != "none"
    return Tls(
        verify=verify,
        check_hostname=verify and given.get("ssl_check_hostname") != "false",
        ca_certs=given.get("ssl_ca_certs"),
        certfile=given.get("ssl_certfile"),
        keyfile=given.get("ssl_keyfile"),
    )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is parsed when it is asked for
    except ValueError:
        return None
    return parts


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return path.is_absolute()
    except OSError:
        return False


def why(error: BaseException) -> str:
    """Return why a server cannot be talked to, in words without a full stop."""
    import ssl  # noqa: PLC0415 - it costs 10 ms, and most commands reach their broker

    told: BaseException | None = error
    while told is not None:  # client libraries wrap what TLS says, some of them without naming it as the cause
        if isinstance(told, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {told.verify_message.rstrip('.')}"
        if isinstance(told, ssl.SSLError) or (isinstance(told, TimeoutError) and "handshake" in str(told)):
            return "it does not speak TLS as expected"
        told = told.__cause__ or told.__context__
    while error.__cause__ is not None:
        error = error.__cause__
    said = error.strerror if isinstance(error, OSError) else str(error)
    return (said or str(error)).rstrip(".") or type(error).__name__
