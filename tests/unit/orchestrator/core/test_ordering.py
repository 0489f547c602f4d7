from datetime import UTC, datetime, timedelta, timezone

import pytest

from orchestrator.core import ordering

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

#: (submitted after noon, priority) of two jobs: the first is claimed before the second.
PAIRS = [
    ((timedelta(0), 0), (timedelta(seconds=1), 0)),  # who came first
    ((timedelta(minutes=59), 1), (timedelta(0), 0)),  # a point is worth an hour
    ((timedelta(0), 0), (timedelta(minutes=61), 1)),  # and no more: nothing starves
    ((timedelta(hours=9), 10), (timedelta(0), 0)),
    ((timedelta(0), 0), (timedelta(0), -1)),  # below the usual
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_order_of_two_jobs(first: tuple[timedelta, int], second: tuple[timedelta, int]) -> None:
    ranks = [ordering.rank(submitted_at=NOON + later, priority=priority) for later, priority in (first, second)]
    assert ranks[0] < ranks[1]


def test_rank_does_not_depend_on_the_zone() -> None:
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    assert ordering.rank(submitted_at=tokyo, priority=3) == ordering.rank(submitted_at=NOON, priority=3)


def test_microseconds_still_order() -> None:
    later = NOON + timedelta(microseconds=1)
    assert ordering.rank(submitted_at=NOON, priority=0) < ordering.rank(submitted_at=later, priority=0)
