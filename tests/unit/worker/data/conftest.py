"""What the tests of the data half share: a server, settings in a folder of their own, and how a refusal is expected."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.core import states
from tests.support import httpserver

Fails = Callable[..., AbstractContextManager[None]]


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
