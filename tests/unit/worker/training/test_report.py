from tests.unit.worker.training import support
from worker import protocol
from worker.training import report


def test_pace_is_due_at_first_then_once_in_its_time() -> None:
    now = iter([10.0, 10.4, 10.5, 10.9, 11.0])
    pace = report.Pace(0.5, clock=lambda: next(now))
    assert [pace.due() for _ in range(5)] == [True, False, True, False, True]


def test_meter_tells_the_rate_since_its_message_before() -> None:
    time = 0.0
    follower = support.Follower()
    meter = report.Meter(follower, unit="steps", clock=lambda: time)
    meter.tell(done=0, total=4)
    for done in range(1, 5):
        time = done * 0.25
        meter.advance(8, done=done, total=4)
    told = follower.of(protocol.Progress)
    assert [(message.done, message.rate) for message in told] == [(0, None), (1, 32.0), (3, 32.0)]
