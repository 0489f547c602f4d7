"""Files that settings are read from; what cannot be read is said without a piece of what it holds."""

import contextlib
import tomllib
from pathlib import Path
from typing import Any

from orchestrator import errors

#: Bytes; a file that is longer is no URL, and /dev/zero has no end.
_LONGEST_SECRET = 4096


def is_there(path: Path) -> bool:
    """Whether there is such a file; in a folder that may not be looked into there is none."""
    with contextlib.suppress(PermissionError):
        return path.is_file()
    return False


def toml(path: Path) -> dict[str, Any]:
    """Return the keys of a TOML file; raises InvalidSetting where it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else _said(error)
        raise errors.InvalidSetting(f"{path} cannot be read.", why=why, hint="It must be valid TOML.") from None


def dotenv(path: Path) -> dict[str, str]:
    """Return the variables that a `.env` file sets; raises InvalidSetting where it cannot be read."""
    from dotenv import dotenv_values  # noqa: PLC0415 - most folders have no .env, and the import costs 15 ms

    try:
        return {key: value for key, value in dotenv_values(path).items() if value is not None}
    except (OSError, ValueError) as error:
        raise errors.InvalidSetting(
            f"{path} cannot be read.", why=_said(error), hint="Write it anew as lines of KEY=value, in UTF-8."
        ) from None


def secret(key: str, path: Path) -> str:
    """Return the URL in the file that the variable `key` names; raises InvalidSetting where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
        text = content.decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise errors.InvalidSetting(
            f"{key} names a file that cannot be read.", why=_said(error), hint="It must hold a URL and nothing else."
        ) from None
    if not text or len(content) > _LONGEST_SECRET:
        raise errors.InvalidSetting(
            f"{key} names a file that holds no URL.",
            why="It is empty." if not text else f"It is longer than {_LONGEST_SECRET} bytes.",
            hint="It must hold a URL and nothing else.",
        )
    return text


def _said(error: OSError | ValueError) -> str:
    """Return why a file cannot be read; a decoder's own words would hold a piece of it."""
    return f"{error.strerror}." if isinstance(error, OSError) else "It is not text in UTF-8."
