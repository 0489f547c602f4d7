"""Downloads that resume: Range and If-Range, sha256 while streaming, limits, retries, atomic publish."""

import contextlib
import email.utils
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import responses
from pathlib import Path
from typing import Any

import requests
import tenacity
import urllib3.exceptions

from orchestrator import config, disk, errors, failpoints
from orchestrator.core import masking, states
from worker.data import urls, whole
from worker.refusals import refused

_CHUNK = 256 * 1024
#: Sizes have 18 digits at most: Python reads no number of thousands.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_COMPLETE_RANGE = re.compile(r"bytes \*/([0-9]{1,18})")
_LENGTH = re.compile(r"[0-9]{1,18}")
#: Answers that another try may change, besides the 5xx: request timeout, too early, too many requests.
_PASSING = frozenset({408, 425, 429})
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416

_TROUBLES = {
    "NameResolutionError": "Its host name is not known.",
    "NewConnectionError": "Nothing answers at its address.",
    "ConnectTimeoutError": "It does not answer.",
    "ConnectTimeout": "It does not answer.",
    "ReadTimeoutError": "It stopped sending.",
    "ReadTimeout": "It stopped sending.",
    "SSLCertVerificationError": "Its TLS certificate cannot be verified.",
    "SSLError": "It does not speak TLS as it should.",
    "ProxyError": "The proxy does not let it through.",
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits and patience. Sizes in bytes, times in seconds."""

    max_bytes: int
    max_seconds: float
    private_hosts_allowed: bool
    connect_timeout: float = 10
    read_timeout: float = 30
    tries: int = 4  #: in a row that bring less than `slowest` would have in a window
    first_backoff: float = 0.5  #: doubles with every such try
    longest_wait: float = 120  #: a server that asks for more with Retry-After is left to the queue's own retries
    slowest: int = 1024  #: bytes a second; a connection that is slower over `window` is given up
    window: float = 30

    @classmethod
    def of(cls, settings: config.Settings) -> "Policy":
        """Return what the settings allow."""
        return cls(
            max_bytes=settings.download_max_bytes,
            max_seconds=settings.download_max_seconds,
            private_hosts_allowed=settings.private_hosts_allowed,
        )


def fetch(
    url: str,
    *,
    folder: Path,
    name: str,
    sha256: str | None,
    policy: Policy,
    report: whole.Report,
    suffix: str = ".zip",
    md5: str | None = None,
    noted: bool = False,
) -> whole.Archive:
    """Download `url` into `folder` as `name` with `suffix`, going on with `name`.part where an earlier try left one.

    Of `sha256` the first digits will do. `noted` leaves beside it what it is, for `whole.taken_up`. The caller holds a
    lock for `name`.

    Raises:
        StageFailed: bad_input (gone, refused, wrong sha256, too large), unreachable, disk_full, timeout.

    """
    transfer = _Transfer(url, folder=folder, name=name, suffix=suffix, policy=policy, report=report)
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Trouble), stop=transfer.is_hopeless, wait=transfer.pause, reraise=True
    )
    try:
        with urls.Session(
            private_hosts_allowed=policy.private_hosts_allowed, timeout=(policy.connect_timeout, policy.read_timeout)
        ) as session:
            patiently(transfer.run, session)
    except _Trouble as trouble:
        raise errors.StageFailed(
            f"{masking.url(url)} cannot be downloaded.",
            reason=states.Reason.UNREACHABLE,
            why=trouble.why,
            hint="Check the URL and the network, then retry the job: it goes on where the download stopped.",
        ) from trouble
    found = transfer.digest.hexdigest()
    if not found.startswith(sha256 or ""):
        transfer.discard()
        raise whole.wrong_digest(masking.url(url), found, sha256)
    if md5 is not None and (sum_ := md5_of(transfer.part)) != md5:
        transfer.discard()
        raise whole.wrong_digest(masking.url(url), sum_, md5, kind="md5")
    if noted:  # before it has its name: whoever dies behind that leaves what can be taken up
        whole.note(transfer.archive, found)
    return whole.Archive(path=transfer.publish(), sha256=found)


def md5_of(path: Path) -> str:
    """Return the md5 of a file, for those who publish nothing better."""
    failpoints.reach("download.sum")
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _Trouble(Exception):
    """Something that another try may get past."""

    def __init__(self, why: str, *, retry_after: float | None = None) -> None:
        self.why = why
        self.retry_after = retry_after
        super().__init__(why)


class _Transfer:
    """One file on its way: what is on disk, its running digest, and how many tries were fruitless."""

    def __init__(self, url: str, *, folder: Path, name: str, suffix: str, policy: Policy, report: whole.Report) -> None:
        self.url = url
        self.policy = policy
        self.report = report
        self.folder = folder
        self.part = folder / f"{name}.part"
        self.archive = self.part.with_suffix(suffix)
        self.sidecar = folder / f"{name}.json"
        self.digest = hashlib.sha256()
        self.have = 0
        self.total: int | None = None
        self.validator: str | None = None  #: strong ETag, else Last-Modified: what If-Range needs
        self.fruitless = 0
        self.deadline = time.monotonic() + policy.max_seconds
        self._take_up()

    def run(self, session: urls.Session) -> None:
        """Ask for what is missing and receive it."""
        before = self.have
        try:
            headers = {"Accept-Encoding": "identity", "User-Agent": "orch"}
            if self.have and self.validator:
                headers |= {"Range": f"bytes={self.have}-", "If-Range": self.validator}
            else:
                self._restart()
            with contextlib.closing(session.get(self.url, headers=headers)) as response:
                if not self._begin(response):
                    self._receive(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            # The error's own text holds the URL's query, which can be a secret.
            raise _Trouble(_said(error)) from error
        finally:
            noteworthy = self.have - before >= self.policy.slowest * self.policy.window
            self.fruitless = 0 if noteworthy else self.fruitless + 1

    def is_hopeless(self, _state: tenacity.RetryCallState) -> bool:
        """Whether to give up."""
        return self.fruitless >= self.policy.tries or time.monotonic() >= self.deadline

    def pause(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds to wait before the next try."""
        trouble = state.outcome.exception() if state.outcome is not None else None
        asked = trouble.retry_after if isinstance(trouble, _Trouble) else None
        return max(asked or 0.0, self.policy.first_backoff * 2.0 ** max(0, self.fruitless - 1))

    def publish(self) -> Path:
        """Give the whole file its final name."""
        failpoints.reach("download.rename")
        self.part.replace(self.archive)
        self.sidecar.unlink(missing_ok=True)
        failpoints.reach("download.folder")
        disk.sync_folder(self.folder)
        return self.archive

    def discard(self) -> None:
        """Remove what was downloaded."""
        failpoints.reach("download.discard")
        self.part.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)

    def _take_up(self) -> None:
        """Go on from an earlier process's part, whose digest is computed anew."""
        try:
            failpoints.reach("download.resume")
            kept = json.loads(self.sidecar.read_bytes())
            self.validator = kept["validator"]
            with self.part.open("rb") as part:
                while piece := part.read(_CHUNK):
                    self.digest.update(piece)
                    self.have += len(piece)
        except (OSError, ValueError, KeyError, TypeError):
            self._restart()

    def _restart(self) -> None:
        self.discard()
        self.digest, self.have, self.total, self.validator = hashlib.sha256(), 0, None, None

    def _begin(self, response: requests.Response) -> bool:
        """Read the answer's head; True when the part turns out to be whole already."""
        status = response.status_code
        packed = response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}
        if packed and status in {_OK, _PARTIAL}:
            raise refused(
                f"{masking.url(self.url)} cannot be downloaded.",
                why="The server packs the archive a second time, though it was asked not to.",
                hint="Give the URL of a server that sends the file as it is.",
            )
        content_range = response.headers.get("Content-Range", "")
        if status == _PARTIAL:
            stated = _CONTENT_RANGE.fullmatch(content_range)
            same = stated is not None and self.total in {None, int(stated[3])}
            if stated is None or not same or int(stated[1]) != self.have or not self.have:
                self._restart()
                raise _Trouble(f"It answered a request for a range with {masking.value(content_range or 'none')}.")
            self.total = int(stated[3])
        elif status == _OK:
            self._restart()
            length = response.headers.get("Content-Length", "")
            self.total = int(length) if _LENGTH.fullmatch(length) else None
            self._keep_validator(response)
        elif status == _UNSATISFIABLE and self.have:
            stated = _COMPLETE_RANGE.fullmatch(content_range)
            if stated is not None and int(stated[1]) == self.have:
                return True
            self._restart()
            raise _Trouble("It no longer has the part that was missing.")
        else:
            raise self._turned_away(response)
        self._check_size(self.total or 0)
        self._check_space()
        return False

    def _keep_validator(self, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        # A weak ETag vouches for the meaning, not for the bytes, and If-Range must not carry it: RFC 9110, 13.1.5.
        self.validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        failpoints.reach("download.note")
        self.sidecar.write_text(json.dumps({"url": masking.url(self.url), "validator": self.validator}))

    def _receive(self, response: requests.Response) -> None:
        stream: Any = response.raw  # read1 returns what has come; read would sit out a slow drip
        window_began, window_bytes = time.monotonic(), 0
        failpoints.reach("download.open")
        with self.part.open("ab") as part:
            while piece := _received(stream):
                self._check_size(self.have + len(piece))
                failpoints.reach("download.write")
                part.write(piece)
                self.digest.update(piece)
                self.have += len(piece)
                self.report(self.have, self.total)
                now = time.monotonic()
                window_bytes += len(piece)
                if now - window_began >= self.policy.window:
                    if window_bytes < self.policy.slowest * self.policy.window:
                        raise _Trouble(f"It sends less than {self.policy.slowest} bytes a second.")
                    window_began, window_bytes = now, 0
                self._check_time(now)
            failpoints.reach("download.fsync")
            part.flush()
            os.fsync(part.fileno())
        if self.total is not None and self.have < self.total:
            raise _Trouble("The connection broke off.")
        if self.total is not None and self.have > self.total:
            self._restart()
            raise _Trouble("It sent more than it had said.")

    def _check_size(self, size: int) -> None:
        if size > self.policy.max_bytes:
            self.discard()
            raise refused(
                f"{masking.url(self.url)} is larger than {self.policy.max_bytes:,} bytes.",
                why="Larger downloads are not allowed on this worker.",
                hint=f"Raise {config.variable('download_max_bytes')}, or give a folder on the worker's host.",
            )

    def _check_time(self, now: float) -> None:
        if now >= self.deadline:
            raise errors.StageFailed(
                f"{masking.url(self.url)} took longer than {self.policy.max_seconds:g} seconds.",
                reason=states.Reason.TIMEOUT,
                why=f"{self.have:,} bytes have come.",
                hint=f"Retry the job: it goes on from there; {config.variable('download_max_seconds')} is the limit.",
            )

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if self.total is not None and self.total - self.have > free:
            raise errors.StageFailed(
                f"There is no space for {masking.url(self.url)}.",
                reason=states.Reason.DISK_FULL,
                why=f"{self.total - self.have:,} bytes are missing, {free:,} are free in {self.folder}.",
                hint=f"Free some space, or set {config.variable('data_cache')} to a larger disk.",
            )

    def _turned_away(self, response: requests.Response) -> Exception:
        status = response.status_code
        said = f"The server answers {status} {responses.get(status, '')}".rstrip() + "."  # never in words of its own
        if status not in _PASSING and status < requests.codes.internal_server_error:
            return refused(
                f"{masking.url(self.url)} cannot be downloaded.",
                why=said,
                hint="Open the URL in a browser; it must lead to the file without a log-in.",
            )
        wait = _retry_after(response.headers.get("Retry-After"))
        if wait is not None and wait > self.policy.longest_wait:
            return errors.StageFailed(
                f"{masking.url(self.url)} cannot be downloaded now.",
                reason=states.Reason.UNREACHABLE,
                why=f"{said} It asks to wait {wait:.0f} seconds.",
                hint="Retry the job: it goes on where the download stopped.",
            )
        return _Trouble(said, retry_after=wait)


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or an HTTP date (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _said(error: BaseException) -> str:
    """Return what a network error means, from the innermost one that is known; never its own words."""
    found = "The connection broke off."
    step: object = error
    while isinstance(step, BaseException):
        found = _TROUBLES.get(type(step).__name__, found)
        step = getattr(step, "reason", None) or (step.args[0] if step.args else None)
    return found


def _received(stream: Any) -> bytes:
    failpoints.reach("download.read")
    piece: bytes = stream.read1(_CHUNK, decode_content=False)
    return piece
