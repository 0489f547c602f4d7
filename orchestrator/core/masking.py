"""What may be shown of a value: no password, no token, and not without end."""

import re
from typing import Any

_LOCATION = re.compile(r"(\[[^]]*\]|[^:@]+)?(:\d*)?")
_HOST = re.compile(r"[/?#\\]")
_ACCOUNT = re.compile(r"[^/@]*@")  # of what is no URL, though it was meant as one

_SHOWN_AT_MOST = 80  # characters of a value in an error


def url(text: str) -> str:
    """Return the URL with its password and query values hidden; all but its scheme where it is no good URL.

    Of an http(s) URL the account's name is hidden too: services take tokens there.
    """
    body, question, _ = text.partition("#")[0].partition("?")
    scheme, slashes, rest = body.partition("//")
    if not slashes:
        return f"{_ACCOUNT.sub('***@', body)}{question and '?***'}"
    location, slash, path = rest.partition("/")
    account, at, host = location.rpartition("@")
    if not _LOCATION.fullmatch(host):  # such as a # in the password, written as it is: the rest of it may be anywhere
        return f"{scheme}{slashes}***"
    name, colon, _ = account.partition(":")
    shown = "***" if at and scheme.lower() in {"http:", "https:"} else f"{name}{colon and ':***'}"
    return f"{scheme}{slashes}{shown}{at}{host}{slash}{path}{question and '?***'}"


def server(text: str) -> str:
    """Return the URL of a database or broker as it may be shown: nothing of it where it is no URL."""
    return url(text) if "//" in text else "***"


def target(text: str) -> str:
    """Return where a job tells of itself as it may be shown: services take their tokens anywhere behind the scheme.

    Of a webhook the host is shown as well.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes or not scheme.isascii() or not scheme.replace("+", "").isalnum():
        return "***"
    hidden = scheme.lower() not in {"http", "https"} or "@" in rest  # of an account nobody knows where it ends
    return f"{scheme}://{'' if hidden else _HOST.split(rest)[0] + '/'}***"


def data(text: str) -> str:
    """Return the name of a data set as it may be shown: a path is shown whole."""
    return text if text.lower().startswith(("/", "file:")) else url(text)


def value(given: Any) -> str:
    """Return a value that somebody gave as an error may quote it: in one line, cut, its URLs masked."""
    try:
        said = repr(data(given)) if isinstance(given, str) else repr(given)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    if not isinstance(given, str) and "//" in said:  # such as a list of URLs
        said = f"a {type(given).__name__}"
    return said if len(said) <= _SHOWN_AT_MOST else f"{said[:_SHOWN_AT_MOST]}…"
