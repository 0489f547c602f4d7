"""Jobs that train on several devices of one worker: claimed whole, never overtaken for ever."""

from typing import Any

from orchestrator.core import jobs, resources, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.support import pools

TRAIN, EVALUATE = states.Stage.TRAIN, states.Stage.EVALUATE


class Worker:
    """A worker with CPU slots, or with GPUs of these names."""

    def __init__(self, store: sql.SqlStore, clock: HandClock, name: str, slots: int, *gpus: str) -> None:
        self.name, self._store, self._devices = name, store, pools.Devices(slots, *gpus)
        self._slots: dict[str, int] = {}
        store.register(
            jobs.Worker(
                identity=parts.identity(name),
                state=states.WorkerState.ACTIVE,
                devices=tuple(device.name for device in self._devices.offer.devices),
                slots=self._devices.offer.devices,
                versions={},
                artifact_root=parts.ROOT,
                started_at=clock.now(),
                beat=0,
                beat_at=clock.now(),
            )
        )

    def asks(self, slot: int, *stages: states.Stage) -> jobs.Claim | None:
        held = parts.claim(self._store, *(stages or (EVALUATE, TRAIN)), worker=self.name, pool=self._devices.slot(slot))
        if held is None:
            self._devices.free(slot)
        else:
            self._slots[held.id] = slot
        return held

    def ends(self, held: jobs.Claim, outcome: jobs.Outcome = parts.DRAINED) -> None:
        self._store.finish(held, outcome)
        self._devices.free(self._slots.pop(held.id))


def trainable(store: sql.SqlStore, gpus: int = 1, **fields: Any) -> jobs.Job:
    job = parts.submit(store, spec=specs.JobSpec(gpus=gpus, batch_size=16), **fields)
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD), parts.DONE)
    return job


def gone(store: sql.SqlStore, job_id: str) -> None:
    store.cancel(job_id, actor="ada")


def test_a_gang_holds_its_devices_and_is_evaluated_on_one(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 3)
    job, other, last = trainable(any_store, 2), trainable(any_store), trainable(any_store)
    held = worker.asks(1)
    assert held is not None
    assert (held.id, [device.id for device in held.devices]) == (job.id, ["cpu.1", "cpu.0"])
    assert any_store.attempts(job.id)[-1].device == "2 x CPU"
    assert worker.asks(0) is None  # its device is the gang's
    small = worker.asks(2)
    assert small
    assert small.id == other.id
    worker.ends(held, parts.DONE)
    evaluation = worker.asks(0)
    assert evaluation
    assert (evaluation.id, len(evaluation.devices)) == (job.id, 1)
    taken = worker.asks(1)
    assert taken
    assert taken.id == last.id


def test_free_devices_are_held_back_until_they_are_enough(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 2)
    trainable(any_store)
    busy = worker.asks(0)
    assert busy
    gang, later = trainable(any_store, 2), trainable(any_store)
    assert worker.asks(1) is None
    assert {name: job.id for name, job in any_store.held_back().items()} == {"desk": gang.id}
    worker.ends(busy, parts.failed(states.Reason.DIVERGED))
    assert any_store.held_back() == {}  # it can begin: nobody waits for it
    held = worker.asks(1)
    assert held
    assert held.id == gang.id
    worker.ends(held, parts.failed(states.Reason.DIVERGED))
    last = worker.asks(0)
    assert last
    assert last.id == later.id


def test_devices_of_another_kind_are_not_held_back(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 0, "A100", "A100", "T4")
    trainable(any_store)
    assert worker.asks(0)
    gang, later = trainable(any_store, 2, demand=resources.Demand(device="a100")), trainable(any_store)
    assert worker.asks(1) is None
    held = worker.asks(2)
    assert held
    assert held.id == later.id
    assert {name: job.id for name, job in any_store.held_back().items()} == {"desk": gang.id}


def test_no_device_is_held_back_for_a_job_that_has_gone(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 2)
    trainable(any_store)
    assert worker.asks(0)
    gang, later = trainable(any_store, 2), trainable(any_store)
    assert worker.asks(1) is None
    gone(any_store, gang.id)
    assert any_store.held_back() == {}
    held = worker.asks(1)
    assert held
    assert held.id == later.id


def test_one_worker_holds_back_and_the_others_work_on(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second, small = (Worker(any_store, clock, name, slots) for name, slots in [("a", 2), ("b", 2), ("c", 1)])
    for _ in range(2):
        trainable(any_store)
    busy = {worker.name: worker.asks(0) for worker in (first, second)}
    gang = trainable(any_store, 2)
    later = [trainable(any_store).id for _ in range(3)]
    assert first.asks(1) is None  # of two that have as many free the first by name
    taken = [worker.asks(slot) for worker, slot in ((second, 1), (small, 0))]
    assert [held and held.id for held in taken] == later[:2]
    assert set(any_store.held_back()) == {"a"}
    for held in (busy["b"], taken[0]):
        assert held
        second.ends(held, parts.failed(states.Reason.DIVERGED))
    assert any_store.held_back() == {}  # the other one has enough at once, and so the first one need not wait
    resumed = first.asks(1)
    assert resumed
    assert resumed.id == later[2]
    held = second.asks(0)
    assert held
    assert held.id == gang.id


def test_a_worker_that_goes_is_relieved(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second = (Worker(any_store, clock, name, 2) for name in ("a", "b"))
    for _ in range(2):
        trainable(any_store)
    assert all(worker.asks(0) for worker in (first, second))
    gang, _ = trainable(any_store, 2), trainable(any_store)
    assert set(any_store.held_back()) == {"a"}
    any_store.wish_worker("a", states.WorkerWish.DRAIN)
    assert {name: job.id for name, job in any_store.held_back().items()} == {"b": gang.id}
    assert second.asks(1) is None


def test_a_job_that_goes_first_by_the_rule_is_not_held_back(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 2)
    trainable(any_store)
    assert worker.asks(0)
    trainable(any_store, 2)
    urgent = trainable(any_store, priority=5)
    held = worker.asks(1)
    assert held
    assert held.id == urgent.id


def test_nobody_holds_back_for_what_no_worker_can_run(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 2)
    trainable(any_store, 3)
    job = trainable(any_store)
    held = worker.asks(0)
    assert held
    assert (held.id, any_store.held_back()) == (job.id, {})


def test_a_claim_that_was_not_heard_of_gets_its_devices_anew(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 2)
    trainable(any_store, 2)
    held = worker.asks(0)
    assert held
    any_store.unheard.append((held, clock.now()))
    worker._devices.free(0)
    worker._devices.slot(1).hold(resources.ANY)
    assert worker.asks(0) is None  # another job has one of them for now
    worker._devices.free(1)
    again = worker.asks(0)
    assert again
    assert (again.id, again.attempt, len(again.devices)) == (held.id, held.attempt, 2)


def test_what_runs_has_its_own_device_and_no_other(any_store: sql.SqlStore, clock: HandClock) -> None:
    Worker(any_store, clock, "old", 1)
    worker = Worker(any_store, clock, "desk", 1, "A100", "T4")
    trainable(any_store, demand=resources.Demand(device="t4"))
    trainable(any_store, 2)
    trainable(any_store)
    small, gang = worker.asks(2), worker.asks(1)
    assert small
    assert gang
    free = {host.worker: [device.name for device in host.free] for host in any_store.hosts()}
    assert free == {"desk": [], "old": ["CPU"]}
    worker.ends(small, parts.failed(states.Reason.DIVERGED))
    free = {host.worker: [device.name for device in host.free] for host in any_store.hosts()}
    assert free == {"desk": ["T4"], "old": ["CPU"]}


def test_what_downloads_has_no_device(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 1)
    parts.submit(any_store)
    parts.claimed(any_store, states.Stage.DOWNLOAD, worker=worker.name)
    assert [len(host.free) for host in any_store.hosts()] == [1]


def test_who_draws_no_more_jobs_has_no_device_for_any(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = Worker(any_store, clock, "desk", 2)
    trainable(any_store)
    busy = worker.asks(0)
    assert busy
    gang = trainable(any_store, 2)
    assert {name: job.id for name, job in any_store.held_back().items()} == {"desk": gang.id}
    any_store.beat_worker("desk", states.WorkerState.SPENT)
    assert (any_store.hosts(), any_store.held_back()) == ([], {})
    any_store.finish(busy, parts.DONE)
    evaluation = worker.asks(1)  # it sees its own to their end
    assert evaluation
    assert evaluation.id == busy.id
