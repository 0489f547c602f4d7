"""How values are said to people."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.cli import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0, "0 s"),
        (0.25, "0.25 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations_have_the_two_units_that_matter(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


def test_a_clock_that_is_ahead_does_not_make_the_future() -> None:
    now = datetime.now(UTC)
    assert words.ago(now + timedelta(seconds=5), now) == "now"
    assert words.ago(now - timedelta(minutes=119), now) == "1 h ago"


def test_small_things() -> None:
    assert words.percent(0.6543) == "65.4 %"
    assert words.size(1536) == "1.5 KiB"
    assert words.place(0) == "next in line"
    assert words.place(1) == "1 job ahead"
    assert words.place(2) == "2 jobs ahead"
