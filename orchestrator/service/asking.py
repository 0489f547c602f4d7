"""Asking what only a worker's packages know, in a process of its own: the command line never loads them."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

from orchestrator import config, errors, failpoints
from orchestrator.service import node

#: A line that the process has written.
Answer = dict[str, Any]


def ask(settings: config.Settings, module: str, request: Mapping[str, object]) -> Iterator[Answer]:
    """Yield what a module of the worker answers to a request.

    Raises:
        OrchError: the packages are missing, the request was refused, or the process failed.

    """
    node.need_torch()
    with tempfile.TemporaryFile("w+") as said:
        yield from _answers(config.child_environment(settings), module, json.dumps(request), said)


def _answers(environment: dict[str, str], module: str, request: str, said: IO[str]) -> Iterator[Answer]:
    failpoints.reach("ask.start")
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,  # a file: a pipe that nobody reads would block it
        env=environment,
        text=True,
    )
    with process:
        if process.stdin is None or process.stdout is None:
            raise errors.OrchError("The process that was asked has no pipes.")
        with contextlib.suppress(BrokenPipeError):  # it has died: its exit code says so below
            process.stdin.write(request)
            process.stdin.close()
        for answer in map(json.loads, process.stdout):
            if "refused" in answer:
                raise errors.OrchError(**answer["refused"])
            yield answer
    if process.returncode:
        said.seek(0)
        lines = said.read().strip().splitlines()
        why = lines[-1] if lines else f"It ended with code {process.returncode}."
        raise errors.OrchError("The process that was asked failed.", why=why)
