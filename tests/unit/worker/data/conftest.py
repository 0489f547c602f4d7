"""What the tests of the data half share: a server, settings in a folder of their own, and how a refusal is expected."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.core import states
from tests.support import httpserver
from worker.data import download, whole

Fails = Callable[..., AbstractContextManager[None]]
Fetch = Callable[..., whole.Archive]

#: A file that is downloaded, and where it is on the server.
BODY = random.Random(0).randbytes(300_000)  # noqa: S311 - bytes, no keys
SHA256 = hashlib.sha256(BODY).hexdigest()
URL = "/set.zip"


@pytest.fixture
def server() -> Iterator[httpserver.Server]:
    with httpserver.Server() as running:
        yield running


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., config.Settings]:
    def make(**values: Any) -> config.Settings:
        return config.Settings(**{"home": tmp_path / "home", **values})

    return make


@pytest.fixture
def fails() -> Fails:
    @contextmanager
    def expect(words: str, *, reason: states.Reason = states.Reason.BAD_INPUT) -> Iterator[None]:
        with pytest.raises(errors.StageFailed) as caught:
            yield
        assert words in f"{caught.value.message} {caught.value.why}"
        assert caught.value.reason == reason
        assert caught.value.hint
        assert "\n" not in caught.value.message

    return expect


@pytest.fixture
def fetch(server: httpserver.Server, tmp_path: Path) -> Fetch:
    def run(*, sha256: str | None = None, report: whole.Report = lambda _done, _total: None, **policy: Any) -> Any:
        quick: dict[str, Any] = {
            "max_bytes": 10**7,
            "max_seconds": 100,
            "private_hosts_allowed": True,
            "first_backoff": 0.01,
            "connect_timeout": 60,
            "read_timeout": 60,
            "window": 60,
        }
        return download.fetch(
            server.url(URL),
            folder=tmp_path,
            name="set",
            sha256=sha256,
            policy=download.Policy(**quick | policy),
            report=report,
        )

    return run


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
