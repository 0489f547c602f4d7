"""What the command line asks of a process of its own, asked in this one: it may have torch already."""

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Iterator, Mapping

import pytest

from orchestrator import config
from orchestrator.service import asking


def here(_: config.Settings, module: str, request: Mapping[str, object]) -> Iterator[asking.Answer]:
    """Yield what a module of the worker answers; in the place of `asking.ask`, for requests that are met."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as changing, contextlib.redirect_stdout(said):
        changing.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(request).encode())))
        code = importlib.import_module(module).main()
    assert code == 0, said.getvalue()
    yield from map(json.loads, said.getvalue().splitlines())
