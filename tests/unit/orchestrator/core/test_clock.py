from datetime import timedelta

from orchestrator.core import clock


def test_wall_time_is_utc() -> None:
    assert clock.SystemClock().now().utcoffset() == timedelta(0)


def test_monotonic_time_does_not_go_back() -> None:
    ticks = [clock.SystemClock().monotonic() for _ in range(100)]
    assert ticks == sorted(ticks)
