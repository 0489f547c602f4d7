"""Times as people write them: a moment in ISO, the next 18:00, or two hours from now."""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from orchestrator import errors
from orchestrator.core import masking

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_SPAN = re.compile(r"\+(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,6})s)?", re.ASCII)


def parse(text: str, *, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Return the moment that `text` means; `now` is aware, and `zone` that of the person: None is this host's.

    Raises:
        UsageError: it is no time.

    """
    try:
        # The first and the last day of the calendar have no such moment.
        return _meant(text.strip(), now, zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise errors.UsageError(
            f"{masking.value(text)} is no time.",
            hint="Write 18:00, +2h, +1d12h, 2026-12-24 or 2026-12-24T18:00+01:00.",
        ) from None


def _meant(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    clock, span = _CLOCK.fullmatch(text), _SPAN.fullmatch(text)
    if clock:
        at = datetime.combine(now.astimezone(zone).date(), time(int(clock[1]), int(clock[2])))
        today = _placed(at, zone)
        return today if today > now else _placed(at + timedelta(days=1), zone)
    if span and any(span.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups())
        return now.astimezone(UTC) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else _placed(moment, zone)


def _placed(local: datetime, zone: tzinfo | None) -> datetime:
    """Return the moment of a local time, by what the clocks show then: in summer they may be an hour ahead."""
    return local.astimezone() if zone is None else local.replace(tzinfo=zone)
