"""What a check of the doctor's finds: one line with a level and a fix."""

import importlib.metadata
from dataclasses import dataclass
from enum import StrEnum

from orchestrator import errors


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"  #: as it should be
    WARN = "warn"  #: works, with a limit
    FAIL = "fail"  #: does not work


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    level: Level
    found: str
    fix: str | None = None


def failed(name: str, error: errors.OrchError) -> Check:
    """Return the finding that an error is."""
    found = " ".join(part for part in (error.message, error.why) if part)
    return Check(name=name, level=Level.FAIL, found=found, fix=error.hint)


def version(distribution: str) -> str:
    """Return which version of a package is installed here, `unknown` where it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
