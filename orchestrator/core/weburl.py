"""Which URLs could be downloaded at all, by their text alone; where they lead is judged at the socket."""

from collections.abc import Iterator
from urllib.parse import urlsplit

#: Characters; servers take about 8,000, and no data set needs half of them.
LONGEST = 4000

HINT = "Check the URL, and write special characters as %XX."

_NO_NAME = "Its host name cannot be one: a part is empty, too long or of characters that names do not have."


def fault(url: str) -> str | None:
    """Return what keeps a URL from being downloaded, as a sentence; None where nothing does."""
    return next(_faults(url), None)


def _faults(url: str) -> Iterator[str]:
    if len(url) > LONGEST:
        yield f"It is longer than {LONGEST} characters."
    if any(character <= " " or character in "\\\x7f" for character in url):
        yield "It holds a space, a backslash or a control character."
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        yield "Its host is no IPv6 address." if "[" in url else _NO_NAME
        return
    if parts.scheme not in {"http", "https"}:
        yield "It must begin with http:// or https://."
    if not host:
        yield "It names no host."
    try:
        if parts.port == 0:
            yield "No server has the port 0."
    except ValueError:
        yield "Its port is not a number up to 65535."
    if ":" not in host and not _can_be_a_name(host):  # with colons it is an IPv6 address, judged by urlsplit
        yield _NO_NAME


def _can_be_a_name(host: str) -> bool:
    try:
        host.removesuffix(".").encode("idna")
    except UnicodeError:
        return False
    return "%" not in host
