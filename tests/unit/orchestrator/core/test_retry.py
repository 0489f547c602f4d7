import random
from datetime import timedelta

import pytest

from orchestrator.core import retry
from orchestrator.core.states import Reason

#: Reason, and how often it is tried again without progress.
RULES = [
    (Reason.LOST, 5),
    (Reason.GPU_ERROR, 5),
    (Reason.UNREACHABLE, 5),
    (Reason.STALLED, 2),
    (Reason.DISK_FULL, 2),
    (Reason.OOM, 2),
    (Reason.INTERNAL, 1),
    (Reason.BAD_INPUT, 0),
    (Reason.USER_ERROR, 0),
    (Reason.DIVERGED, 0),
    (Reason.TIMEOUT, 0),
    (Reason.POISON, 0),
    (Reason.NO_VALID_CHECKPOINT, 0),
    (Reason.DEPENDENCY, 0),
]


def test_every_reason_has_a_rule() -> None:
    assert {reason for reason, _ in RULES} == set(Reason)


@pytest.mark.parametrize(("reason", "limit"), RULES)
def test_limit_of_each_reason(reason: Reason, limit: int) -> None:
    again = [retry.decide(reason=reason, retries=count, total=count).again for count in range(8)]
    assert again == [count < limit for count in range(8)]


@pytest.mark.parametrize("reason", [reason for reason, limit in RULES if limit])
def test_progress_does_not_help_past_the_absolute_limit(reason: Reason) -> None:
    last = retry.decide(reason=reason, retries=0, total=retry.ABSOLUTE_LIMIT - 1)
    past = retry.decide(reason=reason, retries=0, total=retry.ABSOLUTE_LIMIT)
    assert (last.again, past.again) == (True, False)
    assert "used up" in past.why


def test_a_jobs_own_limit_wins_and_the_others_stay() -> None:
    own = {Reason.OOM: 3, Reason.LOST: 0}
    assert retry.decide(reason=Reason.OOM, retries=2, total=2, limits=own).why == "retry 3 of 3"
    assert not retry.decide(reason=Reason.LOST, retries=0, total=0, limits=own).again
    assert retry.decide(reason=Reason.GPU_ERROR, retries=4, total=4, limits=own).why == "retry 5 of 5"


def test_first_loss_has_no_backoff() -> None:
    assert retry.decide(reason=Reason.LOST, retries=0, total=7).delay == timedelta(0)
    second = retry.decide(reason=Reason.LOST, retries=1, total=8).delay
    assert second is not None
    assert second > timedelta(0)


@pytest.mark.parametrize(
    ("retries", "ceiling"),
    [(0, 5), (1, 10), (2, 20), (3, 40), (4, 80)],  # seconds
)
def test_backoff_doubles_with_jitter_in_its_upper_half(retries: int, ceiling: int) -> None:
    source = random.Random(0)  # noqa: S311 - a fixed seed, so that the test sees the same delays each time
    delays = [
        retry.decide(reason=Reason.GPU_ERROR, retries=retries, total=retries, random_source=source).delay
        for _ in range(50)
    ]
    seconds = [delay.total_seconds() for delay in delays if delay is not None]
    assert len(set(seconds)) == 50
    assert min(seconds) >= ceiling / 2
    assert max(seconds) <= ceiling


@pytest.mark.parametrize("retries", [7, 30, retry.ABSOLUTE_LIMIT - 1])
def test_backoff_has_a_ceiling(retries: int) -> None:
    own = {Reason.GPU_ERROR: retry.ABSOLUTE_LIMIT}  # as many as a job may say
    delay = retry.decide(reason=Reason.GPU_ERROR, retries=retries, total=retries, limits=own).delay
    assert delay is not None
    assert retry.LONGEST_BACKOFF / 2 <= delay <= retry.LONGEST_BACKOFF


def test_decision_says_why() -> None:
    assert retry.decide(reason=Reason.BAD_INPUT, retries=0, total=0).why == "bad_input is not retried"
    assert retry.decide(reason=Reason.LOST, retries=1, total=1).why == "retry 2 of 5"
