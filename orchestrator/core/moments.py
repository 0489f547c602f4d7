"""Times as people write them: a moment in ISO, the next 18:00, or two hours from now."""

import re
from datetime import UTC, datetime, time, timedelta

from orchestrator import errors
from orchestrator.core import masking

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_SPAN = re.compile(r"\+(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,6})s)?", re.ASCII)


def parse(text: str, *, now: datetime) -> datetime:
    """Return the moment that `text` means; `now` is aware, and its zone is that of the person.

    Raises:
        UsageError: it is no time.

    """
    try:
        moment = _meant(text.strip(), now)
        moment.astimezone(UTC)  # the first and the last day of the calendar have no such moment
    except (ValueError, OverflowError):
        raise errors.UsageError(
            f"{masking.value(text)} is no time.",
            hint="Write 18:00, +2h, +1d12h, 2026-12-24 or 2026-12-24T18:00+01:00.",
        ) from None
    return moment


def _meant(text: str, now: datetime) -> datetime:
    clock, span = _CLOCK.fullmatch(text), _SPAN.fullmatch(text)
    if clock:
        at = datetime.combine(now.date(), time(int(clock[1]), int(clock[2])), tzinfo=now.tzinfo)
        return at if at > now else at + timedelta(days=1)
    if span and any(span.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups())
        return now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
