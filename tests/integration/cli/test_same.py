"""A job whose result is there already: `submit` names the one that has it, and queues nothing."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Client, config
from orchestrator.core import jobs, provenance, specs, states
from orchestrator.service import same
from orchestrator.store import attemptmodels, sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.contract.test_fences import DATASET
from tests.integration.cli.conftest import Orch, living_worker

State, Stage = states.JobState, states.Stage


def succeeded(
    store: sql.SqlStore, *, environment: provenance.Environment | None = parts.ENVIRONMENT, **fields: Any
) -> jobs.Job:
    """Return a job that has succeeded on data that is known."""
    parts.submit(store, **{"spec": specs.parse({"data": "digits"}), **fields})
    held = parts.claimed(store, Stage.DOWNLOAD)
    store.record_dataset(held, DATASET)
    store.finish(held, parts.DONE)
    held = parts.claimed(store, Stage.TRAIN)
    store.record_resumed(held, attempt=None, step=0)
    if environment is not None:
        store.record_environment(held, environment)
    store.record_checkpoint(held, parts.checkpoint(held, 3, accuracy=0.5, epoch=1), parts.epoch_rows(1))
    store.finish(held, parts.DONE)
    return store.finish(parts.claimed(store, Stage.EVALUATE), parts.DONE)


@pytest.fixture
def worker(store: sql.SqlStore) -> jobs.Worker:
    """A worker with the versions that jobs here were trained with."""
    living = living_worker(versions=parts.ENVIRONMENT.versions | {"celery": "5"})
    store.register(living)
    return living


def looked_at(store: sql.SqlStore, job_id: str, when: datetime) -> None:
    """Let the job have looked at its data at a moment of the machine's clock, which stamps files."""
    attempt = attemptmodels.attempts
    download = (attempt.c.job_id == job_id, attempt.c.stage == Stage.DOWNLOAD)
    store.database.write(
        lambda connection: connection.execute(attempt.update().where(*download).values(started_at=when))
    )


def count(store: sql.SqlStore) -> int:
    return len(store.jobs(jobs.JobFilter()))


@pytest.mark.usefixtures("worker")
def test_the_job_with_the_result_is_named_and_nothing_queued(orch: Orch, store: sql.SqlStore) -> None:
    job = succeeded(store)
    ran = orch("submit", "--data", "digits", "--name", "another", "--tag", "t", "--priority", "3")
    assert (ran.code, ran.out) == (0, f"{job.id}\tsucceeded\t0\n")
    assert f"Job {job.id} has this result" in ran.err
    assert "--force" in ran.err
    assert orch("submit", "--data", "digits", "-q", "--wait").out == f"{job.id}\n"
    told = json.loads(orch("submit", "--data", "digits", "--json").out)
    assert (told["same"], told["is_new"], told["job"]["id"]) == (True, False, job.id)
    assert count(store) == 1


@pytest.mark.usefixtures("worker")
def test_another_run_can_be_asked_for(orch: Orch, store: sql.SqlStore) -> None:
    job = succeeded(store)
    assert orch("submit", "--data", "digits", "--force").rows[0][1] == "queued"
    assert orch("submit", "--data", "digits", "--idempotency-key", "k").rows[0][1] == "queued"
    assert orch("submit", "--data", "digits", "--seed", "1").rows[0][1] == "queued"
    assert orch("clone", job.id).rows[0][1] == "queued"
    assert count(store) == 5


@pytest.mark.usefixtures("worker")
def test_the_client_returns_the_job_with_the_result(
    store: sql.SqlStore, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_USER", "tester")
    job = succeeded(store)
    with Client(settings.home) as client:
        assert client.submit(data="digits") == job
        assert client.submit(data="digits", force=True).id != job.id


@pytest.mark.usefixtures("worker")
def test_of_several_the_newest_is_named(store: sql.SqlStore) -> None:
    succeeded(store)
    newest = succeeded(store)
    assert same.result(store, parts.new_job(spec=newest.spec)) == newest


@pytest.mark.parametrize("state", ["queued", "failed"])
@pytest.mark.usefixtures("worker")
def test_a_job_that_has_not_succeeded_has_no_result(store: sql.SqlStore, state: str) -> None:
    job = parts.submit(store)
    if state == "failed":
        store.finish(parts.claimed(store), parts.failed(states.Reason.BAD_INPUT))
    assert same.result(store, parts.new_job(spec=job.spec)) is None


@pytest.mark.parametrize("name", provenance.DECISIVE)
def test_a_worker_with_another_version_would_train_another_result(
    store: sql.SqlStore, worker: jobs.Worker, name: str
) -> None:
    job = succeeded(store)
    assert same.result(store, parts.new_job(spec=job.spec)) == job
    other = replace(worker, identity=parts.identity("other"), versions=worker.versions | {name: "9"})
    store.register(other)
    assert same.result(store, parts.new_job(spec=job.spec)) is None


def test_without_a_worker_or_an_environment_nothing_is_sure(store: sql.SqlStore) -> None:
    job = succeeded(store)
    assert same.result(store, parts.new_job(spec=job.spec)) is None
    store.register(living_worker(versions=parts.ENVIRONMENT.versions))
    assert same.result(store, parts.new_job(spec=job.spec)) == job
    bare = succeeded(store, spec=specs.parse({"data": "digits", "seed": 9}), environment=None)
    assert same.result(store, parts.new_job(spec=bare.spec)) is None


def _rewrite(folder: Path) -> None:
    (folder / "cats" / "1.png").write_bytes(b"another")


def _add(folder: Path) -> None:
    (folder / "cats" / "2.png").write_bytes(b"more")


def _remove(folder: Path) -> None:
    (folder / "cats" / "1.png").unlink()


def _lose(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("change", [_rewrite, _add, _remove, _lose])
@pytest.mark.usefixtures("worker")
def test_a_folder_that_may_have_changed_is_trained_anew(
    store: sql.SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    folder = tmp_path / "set"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "1.png").write_bytes(b"picture")
    job = succeeded(store, spec=specs.parse({"data": str(folder)}))
    monkeypatch.setattr(same, "PATIENCE", 60)
    time.sleep(0.02)  # the clock that stamps files ticks a hundred times a second or more
    looked_at(store, job.id, datetime.now(UTC))
    new = parts.new_job(spec=job.spec)
    assert same.result(store, new) == job
    time.sleep(0.02)
    change(folder)
    assert same.result(store, new) is None
    parts.overwrite(store, job.id, started_at=datetime.now(UTC) + timedelta(hours=1))  # a retry went on with the old
    assert same.result(store, new) is None


@pytest.mark.usefixtures("worker")
def test_a_folder_with_too_many_files_may_have_changed(
    store: sql.SqlStore, clock: HandClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.move(days=4000)
    job = succeeded(store, spec=specs.parse({"data": f"file:{tmp_path}"}))
    monkeypatch.setattr(same, "PATIENCE", 60)
    assert same.result(store, parts.new_job(spec=job.spec)) == job
    monkeypatch.setattr(same, "PATIENCE", -1)
    assert same.result(store, parts.new_job(spec=job.spec)) is None


@pytest.mark.usefixtures("worker")
def test_a_schedule_that_an_extension_has_stretched_is_another_result(store: sql.SqlStore) -> None:
    for schedule, told in (("constant", True), ("cosine", False)):
        job = succeeded(store, spec=specs.parse({"data": "digits", "epochs": 2, "schedule": schedule}))
        store.extend(job.id, epochs=4, actor="ada")
        held = parts.claimed(store, Stage.TRAIN)
        store.record_resumed(held, attempt=2, step=3)
        store.record_environment(held, parts.ENVIRONMENT)
        store.finish(held, parts.DONE)
        job = store.finish(parts.claimed(store, Stage.EVALUATE), parts.DONE)
        assert (job.state, job.spec.epochs) == (State.SUCCEEDED, 4)
        assert (same.result(store, parts.new_job(spec=job.spec)) == job) is told


@pytest.mark.usefixtures("worker")
def test_weights_of_a_job_are_those_of_one_checkpoint(store: sql.SqlStore) -> None:
    mother = succeeded(store)
    spec = specs.parse({"data": "digits", "weights": f"job:{mother.id}"})
    job = succeeded(store, spec=spec, parent=mother.id, start_step=3)
    new = parts.new_job(spec=spec, parent=mother.id, start_step=3)
    assert same.result(store, new) == job
    assert same.result(store, replace(new, start_step=6)) is None
