"""Users take turns, each one's own jobs go by priority and age: the claim's SQL against the pure rule."""

from collections import Counter
from datetime import datetime
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from orchestrator.core import jobs, limits, ordering, states
from orchestrator.store import jobmodels, sql
from tests.conftest import HandClock
from tests.contract import parts

STAGE = states.Stage
USERS = ("ada", "bob", "cyd")


def users(store: sql.SqlStore, count: int) -> list[str]:
    """Claim some and return whose they were."""
    return [parts.claimed(store, STAGE.DOWNLOAD).job.user for _ in range(count)]


def test_users_take_turns_whoever_came_with_more(any_store: sql.SqlStore, clock: HandClock) -> None:
    for user in ("ada", "ada", "ada", "ada", "bob", "cyd"):
        clock.move(seconds=1)
        parts.submit(any_store, user=user)
    assert users(any_store, 6) == ["ada", "bob", "cyd", "ada", "ada", "ada"]


def test_with_one_slot_whoever_waits_longest_for_a_turn_is_next(any_store: sql.SqlStore, clock: HandClock) -> None:
    for user in ("ada", "ada", "ada", "bob", "bob"):
        parts.submit(any_store, user=user)
    served = []
    for _ in range(5):
        clock.move(seconds=1)
        held = parts.claimed(any_store, STAGE.DOWNLOAD)
        served.append(held.job.user)
        any_store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    assert served == ["ada", "bob", "ada", "bob", "ada"]


def test_who_was_served_by_a_clock_that_was_ahead_is_not_last_until_that_hour(
    any_store: sql.SqlStore, clock: HandClock
) -> None:
    for user in ("ada", "ada", "ada", "bob", "bob"):
        parts.submit(any_store, user=user)
    served = []
    for days in (365, -365, 0, 0, 0):
        clock.move(days=days, seconds=1)
        held = parts.claimed(any_store, STAGE.DOWNLOAD)
        served.append(held.job.user)
        any_store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    assert served == ["ada", "ada", "bob", "ada", "bob"]


def test_whoever_runs_less_at_the_stage_is_next(any_store: sql.SqlStore, clock: HandClock) -> None:
    trainings = [parts.training(any_store, user="ada") for _ in range(2)]
    for user in ("bob", "bob", "ada"):
        clock.move(seconds=1)
        parts.submit(any_store, user=user)
    assert users(any_store, 3) == ["bob", "ada", "bob"]  # her trainings take no place from her downloads
    assert {any_store.get(held.id).state for held in trainings} == {states.JobState.RUNNING}


def test_priority_is_among_ones_own(any_store: sql.SqlStore, clock: HandClock) -> None:
    parts.submit(any_store, user="ada")
    clock.move(seconds=1)
    for priority in (0, 1000):
        parts.submit(any_store, user="bob", priority=priority)
    taken = [parts.claimed(any_store, STAGE.DOWNLOAD).job for _ in range(3)]
    assert [(job.user, job.priority) for job in taken] == [("bob", 1000), ("ada", 0), ("bob", 0)]


class Plan(NamedTuple):
    """A job that is submitted, after so many seconds."""

    user: str
    priority: int
    seconds: int


PLANS = st.lists(
    st.builds(Plan, st.sampled_from(USERS), st.sampled_from([0, 0, 1, -1, 5]), st.sampled_from([0, 1, 3000, 4000])),
    min_size=1,
    max_size=9,
)


class Model:
    """Who waits and who runs, by the pure rule."""

    def __init__(self, waiting: list[jobs.Job]) -> None:
        self.waiting = list(waiting)
        self.running: Counter[str] = Counter()
        self.served: dict[str, datetime] = {}

    def contenders(self) -> list[ordering.Contender]:
        return [
            ordering.Contender(
                user=user,
                running=self.running[user],
                served_at=self.served.get(user),
                rank=rank,
                seq=seq,
                waiting=sum(job.user == user for job in self.waiting),
            )
            for user in {job.user for job in self.waiting}
            for rank, seq in [min(place(job) for job in self.waiting if job.user == user)]
        ]

    def take(self, now: datetime) -> int:
        first = ordering.in_turn(self.contenders())[0]
        self.waiting = [job for job in self.waiting if job.seq != first.seq]
        self.running[first.user] += 1
        self.served[first.user] = now
        return first.seq


def place(job: jobs.Job) -> tuple[float, int]:
    return ordering.rank(submitted_at=job.submitted_at, priority=job.priority), job.seq


@hypothesis.settings(
    max_examples=15, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], derandomize=True
)
@hypothesis.given(plans=PLANS, ends=st.lists(st.booleans(), min_size=9, max_size=9))
def test_claims_come_in_the_order_of_the_rule(
    any_store: sql.SqlStore, clock: HandClock, plans: list[Plan], ends: list[bool]
) -> None:
    any_store.database.write(lambda connection: connection.execute(jobmodels.jobs.delete()))
    submitted = []
    for plan in plans:
        clock.move(seconds=plan.seconds)
        submitted.append(parts.submit(any_store, user=plan.user, priority=plan.priority))
    model, order = Model(submitted), []
    clock.move(seconds=1)
    told = {job.seq: any_store.ahead(job.id) for job in submitted}
    for ended in ends[: len(plans)]:
        clock.move(seconds=1)
        held = parts.claimed(any_store, STAGE.DOWNLOAD)
        assert held.job.seq == model.take(clock.now())
        order.append(held.job)
        if ended:
            any_store.finish(held, parts.failed(states.Reason.BAD_INPUT))
            model.running[held.job.user] -= 1
    assert parts.claim(any_store) is None
    for user in USERS:  # no inversion: of one's own, nothing is passed over
        own = [job for job in order if job.user == user]
        assert own == sorted(own, key=place)
    for number, job in enumerate(order):  # no starvation: who holds nothing waits for each other user once at most
        others_since = Counter(one.user for one in _since_last_turn(order[:number], job))
        if all(ends):
            assert max(others_since.values(), default=0) <= 1
    if not any(ends):
        assert [told[job.seq] for job in order] == list(range(len(order)))


def _since_last_turn(before: list[jobs.Job], job: jobs.Job) -> list[jobs.Job]:
    last = max((number for number, one in enumerate(before) if one.user == job.user), default=-1)
    return before[last + 1 :]


def trainable(store: sql.SqlStore, **fields: object) -> jobs.Job:
    """Return a job that waits for its training."""
    job = parts.submit(store, **fields)
    store.finish(parts.claimed(store, STAGE.DOWNLOAD), parts.DONE)
    return job


def train(store: sql.SqlStore, **of: dict[str, int]) -> jobs.Claim | None:
    return store.claim(
        worker=parts.identity(), device="cpu", stages=(STAGE.TRAIN,), artifact_root="r", limits=limits.Limits(**of)
    )


@pytest.mark.parametrize("named", ["ada", limits.OTHERS])
def test_a_users_limit_holds_for_trainings_alone(any_store: sql.SqlStore, named: str) -> None:
    for user in ("ada", "ada", "bob"):
        trainable(any_store, user=user)
    taken = [train(any_store, users={named: 1}) for _ in range(3)]
    assert [held and held.job.user for held in taken] == ["ada", "bob", None]
    parts.submit(any_store, user="ada")
    assert parts.claim(any_store, STAGE.DOWNLOAD) is not None
    assert taken[0]
    any_store.finish(taken[0], parts.failed(states.Reason.DIVERGED))
    again = train(any_store, users={named: 1})
    assert again
    assert again.job.user == "ada"


def test_a_tags_limit_lets_others_pass(any_store: sql.SqlStore) -> None:
    for tags in (("big",), ("big", "x"), ("bigger",), ("b, ig", "größe")):
        trainable(any_store, tags=tags)
    taken = [train(any_store, tags={"big": 1}) for _ in range(4)]
    assert [held and held.job.tags for held in taken] == [("big",), ("bigger",), ("b, ig", "größe"), None]


def test_a_named_limit_wins_over_that_of_the_others(any_store: sql.SqlStore) -> None:
    for tags in (("a",), ("a",), ("b",), ("b",)):
        trainable(any_store, tags=tags)
    taken = [train(any_store, tags={"*": 1, "b": 2}) for _ in range(4)]
    assert [held and held.job.tags for held in taken] == [("a",), ("b",), ("b",), None]
