"""Brings notices to their targets: webhooks through the URL guard, everything else through apprise, an extra."""

import json
import queue
import socket
import threading
from typing import Any

from orchestrator import config, errors, log
from orchestrator.core import masking, telling
from orchestrator.store import base

_log = log.get("teller")

#: To connect, and between two reads; seconds.
_TIMEOUT = (5.0, 10.0)

#: A try as a whole, which a target that answers byte by byte, or a service of apprise's, could draw out without end.
_LONGEST_SECONDS = 60.0

#: Answers that another try may change, besides the 5xx: request timeout, too early, too many requests.
_PASSING = frozenset({408, 425, 429})

#: Errors before anything was sent: so long as only these came, nobody has heard.
_BEFORE = frozenset(
    ("NameResolutionError", "NewConnectionError", "ConnectTimeoutError", "ConnectTimeout", "ProxyError", "SSLError")
)


class Teller:
    """One node's teller; `round` is called every few seconds, in a thread of its own."""

    def __init__(self, store: base.Store, settings: config.Settings, *, stop: threading.Event) -> None:
        self._store = store
        self._settings = settings
        self._stop = stop
        self._answer: telling.Answer | None = None  #: not stored yet

    def round(self) -> None:
        """Try what is due, one after the other, until nothing is; raises DatabaseUnavailable."""
        while True:
            notice = self._store.next_notice(self._answer, more=not self._stop.is_set())
            self._answer = None
            if notice is None:
                return
            self._answer = self._in_time(notice)
            said = {"job": notice.job_id, "target": masking.target(notice.target)}
            if self._answer.how == "told":
                _log.info("told", event_told=notice.message["event"], **said)
            else:
                _log.warning("not told", why=self._answer.why, **said)

    def _in_time(self, notice: telling.Notice) -> telling.Answer:
        """Try in a thread that is left to itself where it takes too long: the other notices must not wait for it."""
        answers = queue.SimpleQueue[telling.Answer]()
        threading.Thread(target=lambda: answers.put(self._try(notice)), name="notice", daemon=True).start()
        try:
            return answers.get(timeout=_LONGEST_SECONDS)
        except queue.Empty:
            why = f"no whole answer in {_LONGEST_SECONDS:g} seconds"
            return telling.Answer(notice=notice, how="unknown", why=why)

    def _try(self, notice: telling.Notice) -> telling.Answer:
        try:
            if telling.is_web(notice.target):
                return _post(notice, private=self._settings.private_hosts_allowed)
            return _apprise(notice, private=self._settings.private_hosts_allowed)
        except errors.StageFailed as error:  # the URL guard's
            return telling.Answer(notice=notice, how="refused", why=error.why or error.message)
        except Exception as error:  # noqa: BLE001 - what a service's own code raises may quote the target: its name has to do
            name = _innermost(error)
            how: Any = "not_heard" if name in _BEFORE else "unknown"
            return telling.Answer(notice=notice, how=how, why=name)


def _post(notice: telling.Notice, *, private: bool) -> telling.Answer:
    from worker.data import urls  # noqa: PLC0415 - requests takes 0.1 s, and most jobs tell nobody

    headers = {"Content-Type": "application/json", "Idempotency-Key": notice.message["key"], "User-Agent": "orch"}
    with urls.Session(private_hosts_allowed=private, timeout=_TIMEOUT) as session:
        status = session.post(notice.target, body=json.dumps(notice.message).encode(), headers=headers)
    why = f"it answers {status}"
    if 200 <= status < 300:  # noqa: PLR2004 - the codes of success
        return telling.Answer(notice=notice, how="told")
    passing = status >= 500 or status in _PASSING  # noqa: PLR2004 - the server's own faults
    return telling.Answer(notice=notice, how="not_heard" if passing else "refused", why=why)


def _apprise(notice: telling.Notice, *, private: bool) -> telling.Answer:
    try:
        import apprise  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        why = "apprise is not installed on this worker: pip install 'orch[notify]'"
        return telling.Answer(notice=notice, how="refused", why=why)
    service = apprise.Apprise.instantiate(notice.target, suppress_exceptions=True)
    if service is None:
        return telling.Answer(notice=notice, how="refused", why="apprise knows no such service")
    if not private and not _is_public(service):
        why = "its host is not on the public internet: ORCH_ALLOW_PRIVATE_HOSTS=1 allows that"
        return telling.Answer(notice=notice, how="refused", why=why)
    if service.notify(title=f"orch: {notice.message['event']}", body=notice.message["text"]):
        return telling.Answer(notice=notice, how="told")
    return telling.Answer(notice=notice, how="unknown", why="the service did not take it")


def _is_public(service: Any) -> bool:
    """Whether a service is one of the public internet: its own, or a host that the target names and that is there."""
    from worker.data import urls  # noqa: PLC0415 - with requests

    if not any("{host}" in template for template in getattr(service, "templates", ("{host}",))):
        return True
    try:
        found = socket.getaddrinfo(service.host, service.port or None, type=socket.SOCK_STREAM)
    except (OSError, AttributeError, UnicodeError):
        return False
    return all(urls.is_public(str(address[0])) for *_, address in found)


def _innermost(error: BaseException) -> str:
    """Return the name of the error at the bottom of others that only wrap it."""
    reason = getattr(error, "reason", None) or next((one for one in error.args if isinstance(one, Exception)), None)
    return _innermost(reason) if isinstance(reason, Exception) else type(error).__name__
