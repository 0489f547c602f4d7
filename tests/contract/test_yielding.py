"""Preemptible trainings make room for urgent jobs, and for nobody else."""

import functools
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import history, jobs, limits, resources, specs, states
from orchestrator.store import sql, yields
from tests.conftest import HandClock
from tests.contract import parts
from tests.support import pools

State, Stage, Wish = states.JobState, states.Stage, states.Wish

PREEMPTIBLE = specs.JobSpec(preemptible=True)
STAY = timedelta(minutes=5)
YIELDED = jobs.Outcome(kind="yielded")


def worker(store: sql.SqlStore, clock: HandClock, name: str = "worker-a", **fields: Any) -> None:
    given: dict[str, Any] = {"devices": ("cpu",), "artifact_root": parts.ROOT, **fields}
    store.register(
        jobs.Worker(
            identity=parts.identity(name),
            state=states.WorkerState.ACTIVE,
            versions={},
            started_at=clock.now(),
            beat=0,
            beat_at=clock.now(),
            **given,
        )
    )


def held(store: sql.SqlStore, clock: HandClock, **fields: Any) -> jobs.Claim:
    """Return a preemptible training that has run for long enough."""
    claim = parts.training(store, **{"spec": PREEMPTIBLE, **fields})
    clock.move(seconds=STAY.total_seconds())
    return claim


def waiting(store: sql.SqlStore, **fields: Any) -> jobs.Job:
    """Return a job that waits for its training, urgent ones among others."""
    job = parts.submit(store, **{"priority": 5, **fields})
    store.finish(parts.claimed(store, Stage.DOWNLOAD, worker="elsewhere"), parts.DONE)
    return store.get(job.id)


def asked(store: sql.SqlStore) -> int:
    return store.make_room(actor="reconciler", stay=STAY)


def test_a_preemptible_training_yields_to_an_urgent_job_and_goes_on_later(
    any_store: sql.SqlStore, clock: HandClock
) -> None:
    worker(any_store, clock)
    claim = held(any_store, clock)
    urgent = waiting(any_store)
    assert asked(any_store) == 1
    job = any_store.get(claim.id)
    assert (job.state, job.wish, job.yields_to) == (State.RUNNING, Wish.YIELD, urgent.id)
    assert any_store.beat(claim) is any_store.wish(claim) is Wish.YIELD
    assert asked(any_store) == 0  # it has been asked
    any_store.record_checkpoint(claim, parts.checkpoint(claim, 7))
    job = any_store.finish(claim, YIELDED)
    assert (job.state, job.stage, job.wish, job.yields_to) == (State.QUEUED, Stage.TRAIN, Wish.RUN, None)
    assert (job.retries, job.total_retries, job.not_before) == (0, 0, None)
    assert any_store.attempts(job.id)[-1].outcome == "yielded"
    requested, event = any_store.events(job.id)[-2:]
    assert (requested.kind, requested.actor, requested.detail) == (
        "yield_requested",
        "reconciler",
        f"to {urgent.id}, whose priority is 5, not 0",
    )
    assert (event.kind, event.new_state, event.detail) == ("yielded", State.QUEUED, f"to {urgent.id}")
    assert parts.claimed(any_store, Stage.TRAIN).id == urgent.id
    assert parts.claimed(any_store, Stage.TRAIN).checkpoints[0].step == 7
    assert not list(history.check(any_store.history(job.id)))


def test_whoever_is_not_preemptible_or_has_just_begun_stays(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock, devices=("cpu", "cpu"))
    held(any_store, clock, spec=specs.JobSpec())
    parts.training(any_store, spec=PREEMPTIBLE)
    waiting(any_store)
    assert asked(any_store) == 0
    clock.move(seconds=STAY.total_seconds() - 1)
    assert asked(any_store) == 0
    clock.move(seconds=1)
    assert asked(any_store) == 1


@pytest.mark.parametrize("priority", [0, -1])
def test_only_a_higher_priority_is_urgent(any_store: sql.SqlStore, clock: HandClock, priority: int) -> None:
    worker(any_store, clock)
    held(any_store, clock, user="bob")
    parts.submit(any_store, user="cyd", priority=priority)  # would be next: its user has nothing
    any_store.finish(parts.claimed(any_store, Stage.DOWNLOAD), parts.DONE)
    assert asked(any_store) == 0


def test_whoever_would_not_be_next_gets_no_room(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock, devices=("cpu", "cpu"))
    bobs = held(any_store, clock, user="bob", spec=specs.JobSpec())
    held(any_store, clock, user="cyd")
    waiting(any_store, user="bob", priority=1000)  # cyd, who would run nothing, is before bob, who runs one
    assert asked(any_store) == 0
    any_store.finish(bobs, parts.failed(states.Reason.DIVERGED))
    assert asked(any_store) == 0  # there is a free device now


def test_an_old_training_is_overtaken_by_nobody(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock)
    held(any_store, clock)
    clock.move(hours=2)
    waiting(any_store, priority=2)
    assert asked(any_store) == 0
    waiting(any_store, priority=3)
    assert asked(any_store) == 1


def test_the_least_loss_first_and_one_for_each_urgent_job(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock, devices=("cpu",) * 4)
    claims = [held(any_store, clock, priority=priority) for priority in (1, 0, 0, 2)]
    first, second = (waiting(any_store, priority=20), waiting(any_store, priority=10))
    assert asked(any_store) == 1
    assert [any_store.get(claim.id).yields_to for claim in claims] == [None, None, first.id, None]
    any_store.finish(claims[2], YIELDED)
    assert parts.claimed(any_store, Stage.TRAIN).id == first.id
    assert asked(any_store) == 1
    assert [any_store.get(claim.id).yields_to for claim in claims] == [None, second.id, None, None]


def test_a_free_device_that_could_take_the_urgent_job_is_taken_first(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock)
    held(any_store, clock)
    worker(any_store, clock, "worker-b")
    waiting(any_store)
    assert asked(any_store) == 0
    any_store.wish_worker("worker-b", states.WorkerWish.DRAIN)
    assert asked(any_store) == 1


def test_a_free_device_that_may_not_take_it_does_not_count(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock)
    held(any_store, clock)
    worker(any_store, clock, "worker-b", limits=limits.Limits(users={"ada": 0}))
    waiting(any_store)
    assert asked(any_store) == 1


def test_limits_count_as_if_the_training_had_ended(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock, limits=limits.Limits(users={"ada": 1}, tags={"big": 1}))
    held(any_store, clock, tags=("big",))
    waiting(any_store, tags=("big",))
    assert asked(any_store) == 1


@pytest.mark.parametrize("gone", ["cancel", "pause"])
def test_it_is_taken_back_when_the_urgent_job_goes_away(any_store: sql.SqlStore, clock: HandClock, gone: str) -> None:
    worker(any_store, clock)
    claim = held(any_store, clock)
    urgent = waiting(any_store)
    asked(any_store)
    getattr(any_store, gone)(urgent.id, actor="ada")
    assert asked(any_store) == 1
    job = any_store.get(claim.id)
    assert (job.wish, job.yields_to) == (Wish.RUN, None)
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.detail) == ("yield_taken_back", f"to {urgent.id}, which needs no room any more")
    job = any_store.finish(claim, YIELDED)  # its process had been asked already
    assert (job.state, any_store.events(job.id)[-1].detail) == (State.QUEUED, "to nobody: that was taken back too late")


def test_it_is_for_whoever_is_next(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock)
    claim = held(any_store, clock)
    waiting(any_store)
    asked(any_store)
    later = waiting(any_store, priority=9)
    assert asked(any_store) == 1
    assert any_store.get(claim.id).yields_to == later.id


def test_pause_and_cancel_beat_a_yield(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker(any_store, clock)
    claim = held(any_store, clock)
    waiting(any_store)
    asked(any_store)
    with pytest.raises(errors.IllegalMove, match="is running"):
        any_store.resume(claim.id, actor="ada")
    job = any_store.pause(claim.id, actor="ada")
    assert (job.wish, job.yields_to) == (Wish.PAUSE, None)
    assert asked(any_store) == 0
    assert any_store.cancel(claim.id, actor="ada").wish is Wish.CANCEL
    assert asked(any_store) == 0
    assert any_store.finish(claim, YIELDED).state is State.CANCELLED


def test_nothing_is_wished_of_the_attempt_after_the_one_that_was_looked_at(
    any_store: sql.SqlStore, clock: HandClock
) -> None:
    worker(any_store, clock)
    claim = held(any_store, clock)
    urgent = waiting(any_store)
    (found,) = any_store.database.read(lambda connection: yields.asked(connection, stay=STAY, now=clock.now()))
    any_store.finish(claim, parts.DRAINED)
    any_store.pause(urgent.id, actor="ada")
    assert parts.claimed(any_store, Stage.TRAIN).id == claim.id
    wish = functools.partial(yields._wish, one=found, actor="reconciler", now=clock.now())
    assert any_store.database.write(wish) is False
    assert any_store.get(claim.id).wish is Wish.RUN


@pytest.mark.parametrize(
    ("outcome", "stage"),
    [(parts.DONE, Stage.EVALUATE), (parts.failed(states.Reason.GPU_ERROR), Stage.TRAIN), (parts.DRAINED, Stage.TRAIN)],
)
def test_whatever_ends_it_first_ends_the_wish(
    any_store: sql.SqlStore, clock: HandClock, outcome: jobs.Outcome, stage: states.Stage
) -> None:
    worker(any_store, clock)
    claim = held(any_store, clock)
    waiting(any_store)
    asked(any_store)
    job = any_store.finish(claim, outcome)
    assert (job.state, job.stage, job.wish, job.yields_to) == (State.QUEUED, stage, Wish.RUN, None)


@pytest.mark.parametrize(("which", "has_free"), [("other", False), ("other", True), ("holder", False)])
def test_a_waiting_gang_hides_an_urgent_job_only_where_it_is_held_back_for(
    any_store: sql.SqlStore, clock: HandClock, which: str, *, has_free: bool
) -> None:
    trainings = {}
    for name in ("holder", "other"):
        worker(any_store, clock, name, devices=("cpu", "cpu"), slots=pools.Devices(2).offer.devices)
        # Of the holder's only one may yield, or both of them would, to the job on several devices.
        may = [name == which, name == which == "other"]
        trainings[name] = [trained_by(any_store, name, specs.JobSpec(preemptible=one)) for one in may]
    clock.move(seconds=STAY.total_seconds())
    if has_free:
        any_store.finish(trainings["holder"].pop(), parts.failed(states.Reason.DIVERGED))
    waiting(any_store, spec=specs.JobSpec(gpus=2), priority=9)
    urgent = waiting(any_store)
    assert asked(any_store) == (which == "other")
    yields_to = [any_store.get(one.id).yields_to for one in trainings[which]]
    assert sorted(filter(None, yields_to)) == [urgent.id] * (which == "other")


def trained_by(store: sql.SqlStore, name: str, spec: specs.JobSpec) -> jobs.Claim:
    parts.submit(store, spec=spec)
    store.finish(parts.claimed(store, Stage.DOWNLOAD, worker=name), parts.DONE)
    return parts.claimed(store, Stage.TRAIN, worker=name)


def test_one_device_is_no_room_for_a_job_of_two(any_store: sql.SqlStore, clock: HandClock) -> None:
    slots = tuple(resources.Device(id=f"gpu-{number}", kind="gpu", name="A100") for number in range(2))
    worker(any_store, clock, devices=("A100", "A100"), slots=slots)
    held(any_store, clock)
    claim = held(any_store, clock, spec=specs.JobSpec())
    waiting(any_store, spec=specs.JobSpec(gpus=2))
    assert asked(any_store) == 0
    any_store.finish(claim, parts.failed(states.Reason.DIVERGED))
    assert asked(any_store) == 1  # the one that is free is no place for it, and with the other one there are two


def desk(store: sql.SqlStore, clock: HandClock, slots: int, name: str = "desk") -> list[pools.Slot]:
    """Return the slots of a worker with CPU slots."""
    there = pools.Devices(slots)
    worker(store, clock, name, devices=("CPU",) * slots, slots=there.offer.devices)
    return [there.slot(number) for number in range(slots)]


GANG = specs.JobSpec(gpus=2, batch_size=16)


def test_several_yield_together_to_a_job_on_several_devices(any_store: sql.SqlStore, clock: HandClock) -> None:
    slots = desk(any_store, clock, 3)
    claims = [trains_on(any_store, clock, slot, worker="desk", priority=number) for number, slot in enumerate(slots)]
    gang = waiting(any_store, spec=GANG, priority=9)
    assert asked(any_store) == 2  # as many as it lacks, and those that lose least
    assert [any_store.get(claim.id).yields_to for claim in claims] == [gang.id, gang.id, None]
    assert asked(any_store) == 0
    any_store.finish(claims[1], YIELDED)
    assert parts.claim(any_store, Stage.TRAIN, worker="desk", pool=slots[1]) is None  # held back, until both have gone
    assert asked(any_store) == 0
    any_store.finish(claims[0], YIELDED)
    began = parts.claimed(any_store, Stage.TRAIN, worker="desk", pool=slots[0])
    assert (began.id, len(began.devices)) == (gang.id, 2)
    assert asked(any_store) == 0
    for claim in claims[:2]:
        assert not list(history.check(any_store.history(claim.id)))


@pytest.mark.parametrize("other", ["not preemptible", "just begun", "of its priority"])
def test_none_of_several_yields_where_they_are_too_few(any_store: sql.SqlStore, clock: HandClock, other: str) -> None:
    slots = desk(any_store, clock, 2)
    trains_on(any_store, clock, slots[0], worker="desk")
    given: dict[str, dict[str, Any]] = {
        "not preemptible": {"spec": specs.JobSpec()},
        "of its priority": {"priority": 9},
    }
    trains_on(any_store, clock, slots[1], worker="desk", **given.get(other, {}))
    if other == "just begun":
        clock.move(seconds=-1)
    waiting(any_store, spec=GANG, priority=9)
    assert asked(any_store) == 0
    clock.move(seconds=1)
    assert asked(any_store) == (2 if other == "just begun" else 0)


def test_what_was_asked_of_several_is_taken_back_of_all(any_store: sql.SqlStore, clock: HandClock) -> None:
    slots = desk(any_store, clock, 2)
    claims = [trains_on(any_store, clock, slot, worker="desk") for slot in slots]
    gang = waiting(any_store, spec=GANG, priority=9)
    assert asked(any_store) == 2
    any_store.cancel(gang.id, actor="ada")
    assert asked(any_store) == 2
    assert [any_store.get(claim.id).wish for claim in claims] == [Wish.RUN, Wish.RUN]


def test_several_yield_only_where_it_would_be_next(any_store: sql.SqlStore, clock: HandClock) -> None:
    slots = desk(any_store, clock, 2)
    for user, slot in zip("ab", slots, strict=True):
        trains_on(any_store, clock, slot, worker="desk", user=user)
    trains_on(any_store, clock, desk(any_store, clock, 1, "other")[0], worker="other", user="c", spec=specs.JobSpec())
    waiting(any_store, spec=GANG, priority=9, user="c")
    assert asked(any_store) == 0  # it runs one already: the first of the others that has gone would be before it


def test_several_yield_where_it_is_held_back_for(any_store: sql.SqlStore, clock: HandClock) -> None:
    slots, others = desk(any_store, clock, 2, "a"), desk(any_store, clock, 2, "b")
    claims = [trains_on(any_store, clock, slot, worker="a") for slot in slots]
    trains_on(any_store, clock, others[0], worker="b", spec=specs.JobSpec())
    gang = waiting(any_store, spec=GANG, priority=9)
    # One device of each is free then, and of equals the first by name holds back.
    assert asked(any_store) == 2
    assert {any_store.get(claim.id).yields_to for claim in claims} == {gang.id}


def test_several_yield_in_vain_nowhere(any_store: sql.SqlStore, clock: HandClock) -> None:
    slots, others = desk(any_store, clock, 2, "b"), desk(any_store, clock, 2, "a")
    for slot in slots:
        trains_on(any_store, clock, slot, worker="b")
    trains_on(any_store, clock, others[0], worker="a", spec=specs.JobSpec())
    waiting(any_store, spec=GANG, priority=9)
    assert asked(any_store) == 0  # the other worker goes on holding back, when the first has gone here


def unlike(store: sql.SqlStore, clock: HandClock) -> pools.Devices:
    """Return the devices of a worker with an A100 and a CPU slot."""
    there = pools.Devices(1, "A100")
    worker(store, clock, devices=("CPU", "A100"), slots=there.offer.devices)
    return there


def trains_on(
    store: sql.SqlStore, clock: HandClock, slot: pools.Slot, worker: str = "worker-a", **fields: Any
) -> jobs.Claim:
    """Return a preemptible training on a slot's device that has run for long enough."""
    parts.submit(store, **{"spec": PREEMPTIBLE, **fields})
    store.finish(parts.claimed(store, Stage.DOWNLOAD), parts.DONE)
    claim = parts.claimed(store, Stage.TRAIN, worker=worker, pool=slot)
    clock.move(seconds=STAY.total_seconds())
    return claim


@pytest.mark.parametrize(("on", "device"), [(0, "a100"), (1, "cpu")])
def test_who_has_another_kind_of_device_makes_no_room(
    any_store: sql.SqlStore, clock: HandClock, on: int, device: str
) -> None:
    there = unlike(any_store, clock)
    trains_on(any_store, clock, there.slot(on))
    other = trains_on(any_store, clock, there.slot(1 - on), spec=specs.JobSpec())
    waiting(any_store, demand=resources.Demand(device=device))
    assert asked(any_store) == 0  # its room would be none for that job
    any_store.finish(other, parts.failed(states.Reason.DIVERGED))
    assert asked(any_store) == 0  # and this one has a place


def test_a_free_device_of_another_kind_is_no_place(any_store: sql.SqlStore, clock: HandClock) -> None:
    there = unlike(any_store, clock)
    held = trains_on(any_store, clock, there.slot(1))
    urgent = waiting(any_store, demand=resources.Demand(device="a100"))
    assert asked(any_store) == 1  # one of two slots is free, and it is none for that job
    assert any_store.get(held.id).yields_to == urgent.id


def test_a_gang_keeps_no_device_of_another_kind_from_who_comes_later(any_store: sql.SqlStore, clock: HandClock) -> None:
    there = pools.Devices(1, "A100", "A100")
    worker(any_store, clock, devices=("CPU", "A100", "A100"), slots=there.offer.devices)
    trains_on(any_store, clock, there.slot(1), spec=specs.JobSpec())
    held = trains_on(any_store, clock, there.slot(0))
    waiting(any_store, priority=9, spec=specs.JobSpec(gpus=2, batch_size=16), demand=resources.Demand(device="a100"))
    urgent = waiting(any_store)
    assert asked(any_store) == 1
    assert any_store.get(held.id).yields_to == urgent.id
