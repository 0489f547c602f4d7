"""The order of claims, played forward."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core import forecast, lookahead, ordering, resources

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
GPU, CPU = (
    resources.Offer(devices=(resources.Device(id=kind, kind=kind, name=kind),))
    for kind in (resources.GPU, resources.CPU)
)
SECONDS = {"gpu": 10.0, "cpu": 100.0}


def slot(
    free: float = 0.0, *, user: str | None = None, offer: resources.Offer = GPU, worker: str = "w", number: int = 0
) -> lookahead.Slot:
    return lookahead.Slot(worker=worker, device=offer.devices[number], offer=offer, free=free, user=user)


def waiting(seq: int, user: str = "ada", *, comes: float = 0.0, **demand: object) -> lookahead.Waiting:
    wanted = resources.Demand(**demand)  # type: ignore[arg-type] # a test's own words
    return lookahead.Waiting(user=user, rank=seq, seq=seq, demand=wanted, seconds=SECONDS, comes=comes)


def stands(user: str, *, running: int = 0, served: int | None = None) -> ordering.Contender:
    at = None if served is None else NOW - timedelta(seconds=served)
    return ordering.Contender(user=user, running=running, served_at=at, rank=0, seq=0)


def begins(
    slots: list[lookahead.Slot], line: list[lookahead.Waiting], mine: int, *users: ordering.Contender
) -> float | None:
    return lookahead.begins(slots, line, mine, {one.user: one for one in users})


def test_ones_own_jobs_go_one_after_the_other() -> None:
    line = [waiting(1), waiting(2), waiting(3)]
    assert [begins([slot(5)], line, seq, stands("ada")) for seq in (1, 2, 3)] == [5, 15, 25]
    assert begins([slot(5), slot(7)], line, 3, stands("ada")) == 15


def test_users_take_turns_as_trainings_end() -> None:
    line = [waiting(1), waiting(2), waiting(3, "bob")]
    users = stands("ada", running=1, served=10), stands("bob", served=20)
    assert begins([slot(5, user="ada")], line, 1, *users) == 15  # bob was served longer ago
    assert begins([slot(5, user="ada")], line, 3, *users) == 5
    users = stands("ada", running=1, served=10), stands("bob", running=2)
    assert begins([slot(5, user="bob"), slot(6, user="bob"), slot(90, user="ada")], line, 1, *users) == 6
    assert begins([slot(5, user="bob"), slot(6, user="bob"), slot(90, user="ada")], line, 3, *users) == 5


def test_each_waits_for_what_it_demands() -> None:
    line = [waiting(1, device="gpu"), waiting(2, device="gpu"), waiting(3)]
    there = [slot(5), slot(50, offer=CPU, worker="x")]
    assert begins(there, line, 2, stands("ada")) == 15
    assert begins(there, line, 3, stands("ada")) == 25  # the GPU is sooner than the CPU, once those are through
    assert begins([slot(5), slot(0, offer=CPU, worker="x")], line, 3, stands("ada")) == 0
    assert begins([slot(0, offer=CPU)], line, 1, stands("ada")) is None


def test_what_still_downloads_comes_later() -> None:
    line = [waiting(1, comes=8), waiting(2)]
    assert begins([slot(5)], line, 2, stands("ada")) == 5
    assert begins([slot(5)], line, 1, stands("ada")) == 15
    assert begins([slot(5)], line[:1], 1, stands("ada")) == 8


def test_a_job_of_several_devices_waits_for_all_of_them() -> None:
    two = resources.Offer(devices=tuple(resources.Device(id=str(number), kind="gpu", name="gpu") for number in (1, 2)))
    there = [slot(5, offer=two), slot(20, offer=two, number=1)]
    line = [waiting(1, gpus=2), waiting(2)]
    assert begins(there, line, 1, stands("ada")) == 20
    assert begins(there, line, 2, stands("ada")) == 30


def test_a_free_device_of_another_kind_is_none() -> None:
    both = resources.Offer(devices=(*GPU.devices, *CPU.devices))
    there = [slot(50, offer=both), slot(0, offer=both, number=1)]
    assert begins(there, [waiting(1, device="gpu")], 1, stands("ada")) == 50
    assert begins(there, [waiting(1)], 1, stands("ada")) == 0
    assert begins(there, [waiting(1, gpus=2)], 1, stands("ada")) == 50


@pytest.mark.parametrize(
    ("seconds", "rate", "each", "latest"),
    [
        (0, 1, 1, 0),  # what begins now waits for nobody
        (100, 0, 10, 100),  # nobody submits anything
        (100, 0.01, 10, 127),  # one more is the mean, and two more now and then
        (100, 1, 100, 400),  # they have three quarters of all, at most
    ],
)
def test_what_others_submit_delays_it(seconds: float, rate: float, each: float, latest: float) -> None:
    assert forecast.behind_others(seconds, rate=rate, each=each) == pytest.approx(latest, rel=0.03)
