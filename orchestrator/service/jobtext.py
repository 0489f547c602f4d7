"""The text of a job file: read from a file or a pipe, and taken as TOML or YAML, whatever is in it."""

import errno
import os
import select
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator import errors

#: No recipe is longer: whatever is, was meant for something else.
MAX_BYTES = 100_000

#: Seconds that a pipe named as job file may stay silent.
PIPE_PATIENCE = 5.0

HINT = "`orch init FILE` writes a job file with every key; `orch schema job` says what each may be."

_DEEPEST = 10  # a stream, a document, a table, a list; reading ten thousand levels takes an hour
_TOO_DEEP = "It is nested too deep."


def table(text: str, origin: str) -> dict[str, Any]:
    """Return the keys and values that a text in TOML or YAML holds; raises InvalidSpec where it holds none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        as_toml = _toml_fault(error)
    if origin.endswith(".toml"):
        raise errors.InvalidSpec(f"{origin} is not valid TOML.", why=as_toml, hint=HINT)
    values = _from_yaml(text, origin)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise errors.InvalidSpec(f"{origin} is no job file.", why="It must be a table of keys and values.", hint=HINT)
    return values


def _from_yaml(text: str, origin: str) -> Any:
    import yaml  # noqa: PLC0415 - most jobs come without a YAML file, and the import costs 30 ms

    try:
        unfit = _unfit(yaml.parse(text))
        if unfit is not None:
            raise errors.InvalidSpec(f"{origin} is no job file.", why=unfit, hint=HINT)
        document = yaml.compose(text)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise errors.InvalidSpec(f"{origin} is neither TOML nor YAML.", why=_yaml_fault(error), hint=HINT) from None
    keys = [str(key.value) for key, _ in document.value] if isinstance(document, yaml.MappingNode) else []
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise errors.InvalidSpec(f"{origin} is no job file.", why=f"The key {twice} stands there twice.", hint=HINT)
    return values


def _unfit(events: Iterable[Any]) -> str | None:
    """Return what no job file has: aliases, a few of which, nested, print more than any memory holds; and depth."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if kind == "AliasEvent":
            return f"It has an alias, *{event.anchor}."
        if depth > _DEEPEST:
            return _TOO_DEEP
    return None


def _toml_fault(error: Exception) -> str:
    if isinstance(error, tomllib.TOMLDecodeError):
        return f"{error}."
    return _TOO_DEEP if isinstance(error, RecursionError) else "It holds a number of thousands of digits."


def _yaml_fault(error: Exception) -> str:
    """Say what and where; the error's own words quote the line, and a secret with it."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return "Its text cannot be YAML."
    said = ", ".join(filter(None, (getattr(error, "context", None), problem)))
    return f"Line {mark.line + 1}, column {mark.column + 1}: {said}."


def content(path: Path) -> bytes:
    """Return what is in the file; of a pipe, which may have no writer, what comes while something comes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return file.read(MAX_BYTES + 1)
        pieces = b""
        while len(pieces) <= MAX_BYTES:
            if not select.select([file], [], [], PIPE_PATIENCE)[0]:
                raise TimeoutError(errno.ETIMEDOUT, f"Nobody has written into the pipe for {PIPE_PATIENCE:g} seconds")
            piece = file.read(MAX_BYTES)
            if not piece:
                break
            pieces += piece
        return pieces
