"""Telling others how a job fares: on which occasions, where to, how often it is tried. Pure rules.

A notice is taken at most twice, and is not lost with whoever tells it: every try counts as one that may be heard, from
before it begins until it is known not to have been, and there are two of these. A receiver that must not hear twice
goes by the notice's key.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from orchestrator import errors
from orchestrator.core import masking, weburl
from orchestrator.core.states import JobState, Reason

#: Version of a notice's message; raised as that of `--json`.
SCHEMA_VERSION = 1

#: Tries in all, and those of them that may have been heard.
TRIES = 8
MAY_BE_HEARD = 2

#: What one try may take; then somebody else makes the next one.
LONGEST_TRY = timedelta(minutes=5)

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=1)

#: Targets of one job, and bytes of one: PostgreSQL indexes no more than 2,700.
MOST_TARGETS = 10
LONGEST_TARGET = 2000

_WEB = re.compile(r"https?:", re.IGNORECASE)
_SERVICE = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


class Occasion(StrEnum):
    """What is told of a job."""

    FINISHED = "finished"  #: it has succeeded
    FAILED = "failed"  #: it has failed for good
    DIVERGED = "diverged"  #: its loss is not finite
    STALLED = "stalled"  #: it made no progress for the stall time; it may be tried again
    CANCELLED = "cancelled"  #: a person has ended it


_OF_REASON = {Reason.DIVERGED: Occasion.DIVERGED, Reason.STALLED: Occasion.STALLED}
_OF_STATE = {
    JobState.SUCCEEDED: Occasion.FINISHED,
    JobState.FAILED: Occasion.FAILED,
    JobState.CANCELLED: Occasion.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class Telling:
    """Where to tell of a job, and on which occasions; raises `errors.InvalidSpec` for a target that cannot be."""

    targets: tuple[str, ...]
    on: frozenset[Occasion] = frozenset(Occasion)

    def __post_init__(self) -> None:
        if len(self.targets) > MOST_TARGETS:
            raise errors.InvalidSpec(f"A job cannot tell {len(self.targets)} targets: {MOST_TARGETS} are the most.")
        for target in self.targets:
            if (why := fault(target)) is not None:
                raise errors.InvalidSpec(
                    f"{masking.target(target)!a} cannot be told.",
                    why=why,
                    hint="Give the URL of a webhook, or one of apprise's: https://github.com/caronc/apprise/wiki",
                )


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A message that one try is to bring to its target."""

    seq: int
    job_id: str
    target: str  #: with its secrets
    message: dict[str, Any]
    until: datetime  #: then the try is another's


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a try."""

    notice: Notice
    how: Literal["told", "not_heard", "refused", "unknown"]  #: refused: it would always be
    why: str = ""


def fault(target: str) -> str | None:
    """Return what keeps a target from being told, by its text alone; None where nothing does."""
    if not target.isprintable():
        return "It holds a character that cannot be printed."
    if len(target.encode()) > LONGEST_TARGET:
        return f"It is longer than {LONGEST_TARGET} bytes."
    if is_web(target):
        return weburl.fault(target)
    return None if _SERVICE.fullmatch(target) else "It is no URL."


def is_web(target: str) -> bool:
    """Whether a target is a webhook; else it is a service that apprise knows."""
    return _WEB.match(target) is not None


def occasions(wanted: Iterable[str]) -> frozenset[Occasion]:
    """Return the occasions of these names, several of them perhaps in one text; raises InvalidSpec."""
    names = [name.strip() for text in wanted for name in text.split(",") if name.strip()]
    known = {occasion.value: occasion for occasion in Occasion}
    for name in names:
        if name not in known:
            raise errors.InvalidSpec(f"{name[:20]!a} is no occasion to tell of.", why=f"Known are {', '.join(known)}.")
    return frozenset(known[name] for name in names)


def occasion(wanted: Iterable[Occasion], *, state: JobState, reason: Reason | None) -> Occasion | None:
    """Return as what a job's move into `state` is told, None where nobody wants to hear of it."""
    possible = (_OF_REASON.get(reason) if reason else None, _OF_STATE.get(state))
    heard = set(wanted)
    return next((one for one in possible if one in heard), None)


def sentence(job: str, occasion: Occasion, *, accuracy: float | None, reason: Reason | None, error: str | None) -> str:
    """Return what happened to a job, in words."""
    match occasion:
        case Occasion.FINISHED:
            best = f", its best accuracy {accuracy:.1%}" if accuracy is not None else ""
            return f"{job} has succeeded{best}."
        case Occasion.CANCELLED:
            return f"{job} was cancelled."
        case Occasion.DIVERGED:
            said = "has diverged"
        case Occasion.STALLED:
            said = "has stalled"
        case Occasion.FAILED:
            said = f"has failed ({reason})"
    return f"{job} {said}: {error}" if error else f"{job} {said}."


def pause(tries: int) -> timedelta:
    """Return how long to wait after so many tries in vain: 5 s, then four times as long each time, up to an hour."""
    return min(FIRST_PAUSE * int(4 ** (tries - 1)), LONGEST_PAUSE)
