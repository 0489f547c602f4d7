"""Which hosts have which data, and that a job goes to one of them where that costs nobody anything."""

from typing import Any

from orchestrator.core import jobs, nearness, resources, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts

DOWNLOAD, TRAIN, EVALUATE = states.Stage.DOWNLOAD, states.Stage.TRAIN, states.Stage.EVALUATE
SPEC = specs.JobSpec(data="/srv/cats")
DATA = jobs.Dataset(hash="h" * 64, source="cats", classes=("a", "b"), counts={"train": 8}, bytes=10, path="/x")


def worker(store: sql.SqlStore, clock: HandClock, name: str, *, slots: int = 1) -> jobs.WorkerIdentity:
    """Return a worker that is the only one of its host."""
    identity = parts.identity(name, host=f"host-of-{name}")
    devices = tuple(resources.Device(id=f"cpu.{number}", kind="cpu", name="CPU") for number in range(slots))
    store.register(
        jobs.Worker(
            identity=identity,
            state=states.WorkerState.ACTIVE,
            devices=("CPU",) * slots,
            slots=devices,
            versions={},
            artifact_root=parts.ROOT,
            started_at=clock.now(),
            beat=0,
            beat_at=clock.now(),
        )
    )
    return identity


def claimed(store: sql.SqlStore, by: jobs.WorkerIdentity, *stages: states.Stage) -> jobs.Claim:
    held = store.claim(worker=by, device="cpu", stages=stages or tuple(states.Stage), artifact_root=parts.ROOT)
    assert held is not None
    return held


def lets(store: sql.SqlStore, who: jobs.WorkerIdentity, *stages: states.Stage) -> states.Stage | None:
    return store.for_another(worker=who, stages=stages or (EVALUATE, TRAIN), artifact_root=parts.ROOT)


def downloaded(store: sql.SqlStore, by: jobs.WorkerIdentity, **fields: Any) -> None:
    parts.submit(store, **{"spec": SPEC, **fields})
    held = claimed(store, by, DOWNLOAD)
    store.record_dataset(held, DATA)
    store.finish(held, parts.DONE)


def test_who_has_brought_data_here_has_it(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second = (worker(any_store, clock, name) for name in "ab")
    job = parts.submit(any_store, spec=SPEC)
    assert any_store.copies(job) == frozenset()
    downloaded(any_store, first)
    assert any_store.copies(parts.submit(any_store, spec=SPEC)) == {"host-of-a"}  # by where it is from
    assert any_store.copies(parts.submit(any_store)) == frozenset()
    held = claimed(any_store, second, TRAIN)
    assert any_store.copies(held.job) == {"host-of-a"}  # by its content
    any_store.record_resumed(held, attempt=None, step=0)
    any_store.finish(held, parts.DONE)
    assert any_store.copies(held.job) == {"host-of-a", "host-of-b"}  # who trains on it has fetched it


def test_data_that_no_job_had_for_long_is_forgotten(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second = (worker(any_store, clock, name) for name in "ab")
    downloaded(any_store, first)
    clock.move(days=nearness.REMEMBERED.days + 1)
    downloaded(any_store, second, spec=specs.JobSpec(data="/srv/dogs"))
    assert any_store.copies(parts.submit(any_store, spec=SPEC)) == frozenset()


def test_a_slot_lets_who_has_the_data_begin(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second = (worker(any_store, clock, name) for name in "ab")
    downloaded(any_store, first)
    assert (lets(any_store, first), lets(any_store, second)) == (None, TRAIN)
    parts.submit(any_store, spec=SPEC)
    assert lets(any_store, second, DOWNLOAD) is DOWNLOAD
    any_store.wish_worker(first.id, states.WorkerWish.DRAIN)
    assert lets(any_store, second) is None
    any_store.wish_worker(first.id, states.WorkerWish.RUN)
    claimed(any_store, first, TRAIN)
    downloaded(any_store, first)
    assert lets(any_store, second) is None  # its one device is busy: nobody waits for that


def test_whose_turn_it_is_stays_as_it_is(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second = (worker(any_store, clock, name) for name in "ab")
    parts.submit(any_store)
    any_store.finish(claimed(any_store, second, DOWNLOAD), parts.DONE)
    downloaded(any_store, first, priority=-5)
    assert lets(any_store, second) is None  # what is next for it is another job, of which nobody has the data
    next_one = claimed(any_store, second, TRAIN)
    assert next_one.job.priority == 0


def test_an_evaluation_waits_for_nobody(any_store: sql.SqlStore, clock: HandClock) -> None:
    first, second = (worker(any_store, clock, name) for name in "ab")
    downloaded(any_store, first)
    held = claimed(any_store, first, TRAIN)
    any_store.record_resumed(held, attempt=None, step=0)
    any_store.finish(held, parts.DONE)
    downloaded(any_store, first)
    assert lets(any_store, second) is None
    assert claimed(any_store, second, EVALUATE, TRAIN).job.stage is EVALUATE
    assert lets(any_store, second) is TRAIN


def test_on_one_host_nobody_is_asked(any_store: sql.SqlStore, clock: HandClock) -> None:
    first = worker(any_store, clock, "a")
    downloaded(any_store, first)
    assert lets(any_store, parts.identity("other", host="host-of-a")) is None
