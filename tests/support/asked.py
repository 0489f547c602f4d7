"""The processes with torch that commands ask, in this one: that is ten times as fast.

Everything else is real: the module's `main`, the request and the lines of its answer, a refusal, and what is left of a
traceback. Only how far it is comes all at once.
"""

import contextlib
import importlib
import importlib.util
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import IO, Self
from unittest import mock

import pytest

from orchestrator.service import asking


class Here:
    """Stands for a process of Python with `-m module`, which has ended before anybody reads what it said."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], stderr: IO[str], **_pipes: object) -> None:
        self.returncode = 0
        self.stdin, self.stdout = _Asked(), self._run(command[-1], env, stderr)

    def _run(self, module: str, environment: Mapping[str, str], stderr: IO[str]) -> Iterator[str]:
        said = io.StringIO()
        with (
            mock.patch.dict(os.environ, environment, clear=True),  # noqa: TID251 - what a process is given
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(self.stdin.getvalue().encode()))),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(stderr),
        ):
            try:
                self.returncode = importlib.import_module(_with_main(module)).main()
            except Exception:  # noqa: BLE001 - as Python does at the end of a process
                traceback.print_exc()
                self.returncode = 1
        yield from said.getvalue().splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class _Asked(io.StringIO):
    """A pipe that can still be read when it was closed."""

    def close(self) -> None:
        pass


def _with_main(module: str) -> str:
    found = importlib.util.find_spec(module)
    return f"{module}.__main__" if found is not None and found.submodule_search_locations is not None else module


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands ask a process of its own, as they do outside of tests."""
    monkeypatch.setattr(asking, "subprocess", subprocess)


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands ask in this process."""
    monkeypatch.setattr(asking, "subprocess", SimpleNamespace(Popen=Here, PIPE=subprocess.PIPE))
