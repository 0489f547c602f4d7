import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from orchestrator import errors
from orchestrator.core import moments

NOW = datetime(2026, 11, 24, 15, 30, 10, tzinfo=timezone(timedelta(hours=1)))

#: What is written, and what it means at 15:30:10 in a zone an hour east of Greenwich.
TIMES = {
    "18:00": "2026-11-24T18:00:00+01:00",
    "9:05": "2026-11-25T09:05:00+01:00",  # today's has passed
    "15:30": "2026-11-25T15:30:00+01:00",
    "+2h": "2026-11-24T17:30:10+01:00",
    "+1d12h": "2026-11-26T03:30:10+01:00",
    "+90s": "2026-11-24T15:31:40+01:00",
    "+5m": "2026-11-24T15:35:10+01:00",
    "+5min": "2026-11-24T15:35:10+01:00",
    "2026-12-24": "2026-12-24T00:00:00+01:00",
    "2026-12-24T18:00": "2026-12-24T18:00:00+01:00",
    "2026-12-24T18:00Z": "2026-12-24T18:00:00+00:00",
    " 2026-12-24T18:00-08:00 ": "2026-12-24T18:00:00-08:00",
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_what_people_mean(text: str) -> None:
    assert moments.parse(text, now=NOW, zone=NOW.tzinfo) == datetime.fromisoformat(TIMES[text])


@pytest.mark.parametrize(
    "text", ["", "+", "tomorrow", "25:00", "18:60", "2h", "+2x", "-2h", "+1h1d", "1\u0662:00", "+9999999d"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        moments.parse(text, now=NOW)
    assert "+2h" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["+999999d", "+999999d999999h", "+999999h"])
def test_what_is_beyond_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError):
        moments.parse(text, now=datetime(9999, 12, 31, tzinfo=NOW.tzinfo))


@pytest.fixture
def _summer_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this host's clocks be those of central Europe: set back on the last Sunday of October."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


#: What is written at 22:00 on the evening before the clocks are set back.
OVER_THE_CHANGE = {
    "2026-12-24T18:00": "2026-12-24T17:00Z",
    "18:00": "2026-10-25T17:00Z",
    "23:00": "2026-10-24T21:00Z",
    "+12h": "2026-10-25T08:00Z",
    "2026-12-24": "2026-12-23T23:00Z",
}


@pytest.mark.usefixtures("_summer_time")
@pytest.mark.parametrize("text", OVER_THE_CHANGE)
def test_a_local_time_is_what_the_clocks_show_then(text: str) -> None:
    now = datetime(2026, 10, 24, 20, tzinfo=UTC)
    assert moments.parse(text, now=now) == datetime.fromisoformat(OVER_THE_CHANGE[text])
