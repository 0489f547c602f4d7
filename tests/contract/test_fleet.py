from contextlib import closing
from datetime import datetime, timedelta, tzinfo

import pytest
from pydantic import SecretStr

from orchestrator import config, errors
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, states
from orchestrator.store import engine, hostmodels, sql
from tests.conftest import HandClock
from tests.contract import parts

State, Reason, WorkerState = states.JobState, states.Reason, states.WorkerState


def register(store: sql.SqlStore, clock: HandClock, name: str = "worker-a", **identity: object) -> jobs.Worker:
    worker = jobs.Worker(
        identity=parts.identity(name, **identity),  # type: ignore[arg-type] # host or pid
        state=WorkerState.ACTIVE,
        devices=("cpu", "cpu"),
        versions={"orch": "0.1.0"},
        artifact_root=parts.ROOT,
        started_at=clock.now(),
        beat=0,
        beat_at=clock.now(),
    )
    store.register(worker)
    return worker


def test_registered_worker_is_listed_with_its_jobs(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = register(any_store, clock)
    assert any_store.workers() == [worker]
    parts.submit(any_store)
    held = parts.claimed(any_store, worker=worker.id)
    assert any_store.workers()[0].jobs == (held.id,)
    any_store.finish(held, parts.DRAINED)
    assert any_store.workers()[0].jobs == ()


def test_worker_beats(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock)
    clock.move(seconds=5)
    any_store.beat_worker("worker-a", WorkerState.DRAINING)
    (worker,) = any_store.workers()
    assert (worker.beat, worker.beat_at, worker.state) == (1, clock.now(), WorkerState.DRAINING)


def test_unknown_worker_cannot_beat(any_store: sql.SqlStore) -> None:
    with pytest.raises(errors.NotFound):
        any_store.beat_worker("nobody", WorkerState.ACTIVE)


def test_worker_that_registers_again_is_active_again(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock)
    any_store.beat_worker("worker-a", WorkerState.STOPPED)
    register(any_store, clock, pid=200)
    (worker,) = any_store.workers()
    assert (worker.state, worker.identity.pid) == (WorkerState.ACTIVE, 200)


def test_ended_workers_are_shown_for_a_day(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock)
    any_store.beat_worker("worker-a", WorkerState.STOPPED)
    clock.move(hours=23)
    assert [worker.state for worker in any_store.workers()] == [WorkerState.STOPPED]
    clock.move(hours=2)
    assert any_store.workers() == []


def test_silent_worker_is_lost_once(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock)
    any_store.beat_worker("worker-a", WorkerState.ACTIVE)
    assert not any_store.lose_worker("worker-a", beat=0)  # it has beaten since
    assert any_store.lose_worker("worker-a", beat=1)
    assert not any_store.lose_worker("worker-a", beat=1)
    assert any_store.workers()[0].state is WorkerState.LOST
    any_store.beat_worker("worker-a", WorkerState.ACTIVE)  # it was only frozen
    assert any_store.workers()[0].state is WorkerState.ACTIVE


def test_stopped_worker_is_not_lost(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock)
    any_store.beat_worker("worker-a", WorkerState.STOPPED)
    assert not any_store.lose_worker("worker-a", beat=1)


def test_dead_lease_is_taken_back(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    clock.move(seconds=30)
    job = any_store.take_back(any_store.leases()[0], actor="reconciler-b", detail="no beat for 30 s")
    assert job is not None
    assert (job.state, job.stage, job.retries, job.not_before, job.worker) == (
        State.QUEUED,
        states.Stage.TRAIN,
        1,
        None,  # the first loss has no backoff
        None,
    )
    attempt = any_store.attempts(held.id)[-1]
    assert (attempt.outcome, attempt.reason, attempt.ended_at) == ("lost", Reason.LOST, clock.now())
    event = any_store.events(held.id)[-1]
    assert (event.kind, event.actor, event.reason, event.new_state) == (
        "lost",
        "reconciler-b",
        Reason.LOST,
        State.QUEUED,
    )
    assert "no beat for 30 s" in str(event.detail)
    assert any_store.leases() == []


def test_second_loss_in_a_row_backs_off(any_store: sql.SqlStore) -> None:
    parts.training(any_store)
    any_store.take_back(any_store.leases()[0], actor="r", detail="silent")
    parts.claimed(any_store)
    job = any_store.take_back(any_store.leases()[0], actor="r", detail="silent")
    assert job is not None
    assert job.not_before is not None


def test_lease_that_moved_is_left_alone(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    (seen,) = any_store.leases()
    any_store.beat(held)
    assert any_store.take_back(seen, actor="r", detail="silent") is None
    assert any_store.get(held.id).state is State.RUNNING


def test_lease_of_an_earlier_attempt_is_left_alone(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    (seen,) = any_store.leases()
    any_store.finish(held, parts.DRAINED)
    assert any_store.take_back(seen, actor="r", detail="silent") is None
    again = parts.claimed(any_store)
    assert any_store.take_back(seen, actor="r", detail="silent") is None
    assert any_store.get(again.id).state is State.RUNNING


def test_lost_job_that_was_to_be_cancelled_is_cancelled(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.cancel(held.id, actor="ada")
    job = any_store.take_back(any_store.leases()[0], actor="r", detail="silent")
    assert job is not None
    assert (job.state, job.reason) == (State.CANCELLED, None)


def test_host_releases_what_its_dead_workers_held(any_store: sql.SqlStore, clock: HandClock) -> None:
    for name, host in (("dead", "host-a"), ("alive", "host-a"), ("elsewhere", "host-b")):
        register(any_store, clock, name, host=host)
        parts.submit(any_store)
        parts.claimed(any_store, worker=name)
    asked: list[str] = []

    def alive(identity: jobs.WorkerIdentity) -> bool:
        asked.append(identity.id)
        return identity.id == "alive"

    (job,) = any_store.release_host(actor="node", host="host-a", alive=alive)
    assert sorted(asked) == ["alive", "dead"]
    assert (job.state, any_store.attempts(job.id)[0].worker) == (State.QUEUED, "dead")
    assert {worker.id: worker.state for worker in any_store.workers()} == {
        "dead": WorkerState.LOST,
        "alive": WorkerState.ACTIVE,
        "elsewhere": WorkerState.ACTIVE,
    }
    assert any_store.release_host(actor="node", host="host-a", alive=alive) == []


def test_job_of_a_worker_long_lost_is_released_too(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock, "dead")
    parts.submit(any_store)
    held = parts.claimed(any_store, worker="dead")
    any_store.lose_worker("dead", beat=0)
    clock.move(seconds=timedelta(days=3).total_seconds())
    released = any_store.release_host(actor="node", host="host-a", alive=lambda _: False)
    assert [job.id for job in released] == [held.id]


@pytest.mark.parametrize("state", [WorkerState.UNHEALTHY, WorkerState.DRAINING])
def test_a_worker_that_takes_no_jobs_claims_none(
    any_store: sql.SqlStore, clock: HandClock, state: states.WorkerState
) -> None:
    parts.submit(any_store)
    worker = register(any_store, clock)
    any_store.beat_worker(worker.id, state)
    assert parts.claim(any_store) is None
    assert parts.claim(any_store, worker="worker-b") is not None


def test_the_attempts_of_a_worker_that_ended_come_newest_first(any_store: sql.SqlStore, clock: HandClock) -> None:
    ended = []
    for _ in range(3):
        parts.submit(any_store)
        held = parts.claimed(any_store, states.Stage.DOWNLOAD)
        clock.move(seconds=1)
        any_store.finish(held, parts.failed(Reason.BAD_INPUT))
        ended.append(held.id)
    parts.submit(any_store)
    parts.claimed(any_store)
    assert [attempt.job_id for attempt in any_store.ended_attempts("worker-a")] == ended[::-1]
    assert len(any_store.ended_attempts("worker-a", limit=2)) == 2
    assert any_store.ended_attempts("worker-b") == []


def test_silence_is_told_by_the_server_s_clock_where_there_is_one(
    postgres_url: str, settings: config.Settings, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's host is an hour behind: by the reader's clock alone it would seem dead."""
    shared = settings.model_copy(update={"database_url": SecretStr(postgres_url)})

    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a datetime will do
            return datetime.now(tz) - timedelta(hours=1)

    with closing(sql.open_store(shared)) as store:
        with monkeypatch.context() as patch:
            for module in (engine, clocks):
                patch.setattr(module, "datetime", Behind)
            register(store, clock)
            store.beat_worker("worker-a", WorkerState.ACTIVE)
        (worker,) = store.workers()
    assert worker.silence < 60


def test_who_has_not_beaten_since_the_clock_was_set_back_is_silent(any_store: sql.SqlStore, clock: HandClock) -> None:
    register(any_store, clock, "living")
    register(any_store, clock, "dead")
    clock.move(hours=-1)
    any_store.beat_worker("living", WorkerState.ACTIVE)
    assert {worker.id: worker.silence for worker in any_store.workers()} == {"living": 0, "dead": 3600}


def test_hours_of_running_are_not_given_away_by_a_clock_that_is_set_back(
    any_store: sql.SqlStore, clock: HandClock
) -> None:
    held = parts.training(any_store)
    clock.move(hours=2)
    any_store.finish(held, parts.DRAINED)
    held = parts.claimed(any_store)
    clock.move(hours=-1)
    any_store.finish(held, parts.DRAINED)
    assert parts.claimed(any_store).ran == timedelta(hours=2)


def test_a_worker_of_a_later_orch_may_say_more_of_its_slots(any_store: sql.SqlStore, clock: HandClock) -> None:
    worker = register(any_store, clock)
    slot = {"id": "cpu.0", "kind": "cpu", "name": "CPU", "memory": None}
    said = hostmodels.workers.update().values(slots=[slot | {"invented_later": 1}])
    any_store.database.write(lambda connection: connection.execute(said))
    assert [device.id for device in any_store.workers()[0].slots] == ["cpu.0"]
    assert [host.worker for host in any_store.hosts()] == [worker.id]
