"""What an earlier orch stored is read by this one; what it still writes during an upgrade fits as well."""

import math
import multiprocessing
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection

from orchestrator import config, errors
from orchestrator.core import jobs, states
from orchestrator.store import engine, migrations, sql
from tests.contract import parts
from tests.migration.conftest import NEXT, ROWS, Add, elsewhere, fill, make
from tests.support.waiting import patiently

REVISIONS = sorted(path.name[:4] for path in (migrations.scripts() / "versions").glob("[0-9]*.py"))
KEPT = sorted(path.stem for path in ROWS.glob("*.sql"))
DEADLINE = 90.0


def pictures(connection: Connection) -> dict[str, set[str]]:
    """Return every row of every table, as text."""
    metadata = sqlalchemy.MetaData()
    metadata.reflect(connection)
    return {
        table.name: {repr(dict(row._mapping)) for row in connection.execute(table.select())}
        for table in metadata.tables.values()
        if table.name != "alembic_version"
    }


def test_every_revision_but_the_newest_has_its_rows() -> None:
    assert set(REVISIONS[:-1]) <= set(KEPT) <= set(REVISIONS)


@pytest.mark.parametrize("revision", KEPT)
def test_what_an_earlier_orch_stored_is_read_after_the_upgrade(
    empty_url: str, revision: str, settings: config.Settings
) -> None:
    make(empty_url, revision)
    fill(empty_url, revision)
    with closing(engine.Database(empty_url)) as database:
        assert [name for name, rows in database.read(pictures).items() if not rows] == []  # there is one of everything
    migrations.upgrade(empty_url)
    migrations.check(empty_url)
    with closing(sql.open_store(elsewhere(settings, empty_url))) as store:
        _check_jobs(store)
        _check_history(store)
        _check_results(store)
        _check_that_work_goes_on(store)


@pytest.mark.parametrize("revision", KEPT)
def test_what_an_earlier_orch_writes_fits_into_the_newest_schema(
    newest_url: str, revision: str, settings: config.Settings
) -> None:
    """Workers that run during an upgrade go on: a migration may add only what they can leave out."""
    fill(newest_url, revision)
    with closing(sql.open_store(elsewhere(settings, newest_url))) as store:
        _check_jobs(store)
        _check_that_work_goes_on(store)


def _check_jobs(store: sql.SqlStore) -> None:
    assert [job.id[0] for job in store.jobs(jobs.JobFilter())] == ["d", "c", "b", "a"]
    waiting, running, failed, done = (store.get(letter * 8) for letter in "abcd")
    assert (waiting.state, waiting.stage, waiting.spec.epochs) == (states.JobState.QUEUED, states.Stage.DOWNLOAD, 2)
    assert (running.name, running.tags, running.idempotency_key) == ("größer", ("t1", "t2"), "key-b")
    assert (running.run, running.attempt, running.wish) == (2, 3, states.Wish.CANCEL)
    assert (running.progress.done, running.progress.rate, running.best_accuracy) == (25, 31.5, 0.75)
    assert (failed.reason, failed.error) == (states.Reason.DIVERGED, "The loss is not finite.")
    assert done.state is states.JobState.SUCCEEDED
    assert done.finished_at is not None
    assert done.finished_at.isoformat() == "2026-11-24T09:02:00+00:00"
    assert store.leases() == [jobs.Lease(job_id="b" * 8, attempt=3, beat=4, worker="desk-1")]


def _check_history(store: sql.SqlStore) -> None:
    outcomes = [(attempt.outcome, attempt.last_step) for attempt in store.attempts("b" * 8)]
    assert outcomes == [("done", None), ("lost", 23), (None, None)]
    assert [event.kind for event in store.events("b" * 8)] == ["submitted", "lost"]
    assert "".join(chunk.text for chunk in store.logs("b" * 8)) == "epoch 1 of 2 half way"
    shown = {worker.id: (worker.state, worker.jobs) for worker in store.workers()}
    assert shown["desk-1"] == (states.WorkerState.ACTIVE, ("b" * 8,))


def _check_results(store: sql.SqlStore) -> None:
    (point,) = store.checkpoints("b" * 8)
    assert (point.step, point.bytes, point.sha256, point.best, point.last) == (20, 1234, "sum-b", True, True)
    train, val = store.epochs("b" * 8)
    assert (train.loss, train.lr) == (0.7, 0.0001)
    assert math.isnan(val.loss)
    assert [step.step for step in store.steps("b" * 8)] == [19, 20]  # what lies past the resumed step is hidden
    evaluation = store.evaluation("d" * 8)
    assert evaluation is not None
    assert evaluation.confusion == ((1, 1), (1, 1))
    dataset = store.dataset("sha256-of-data")
    assert dataset is not None
    assert dataset.counts == {"train": 8, "val": 4}


def _check_that_work_goes_on(store: sql.SqlStore) -> None:
    assert parts.claimed(store, states.Stage.DOWNLOAD).id == "a" * 8
    assert store.retry("c" * 8, actor="bob").run == 2
    lost = store.take_back(store.leases()[0], actor="r", detail="silent")
    assert lost is not None
    assert parts.submit(store).seq > store.get("d" * 8).seq


def _work_until(settings: config.Settings, stop: Any, done: Any) -> None:
    """Be a worker that was started before the upgrade: claim, beat, write, end, again and again."""
    with closing(sql.open_store(settings)) as store:
        count = 0
        while not stop.is_set() or count < 1:
            patiently(parts.submit, store)
            name = f"w{multiprocessing.current_process().pid}"
            held = patiently(parts.claimed, store, states.Stage.DOWNLOAD, worker=name)
            patiently(store.beat, held)
            patiently(store.record_log, held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="x"))
            patiently(store.finish, held, parts.failed(states.Reason.BAD_INPUT))
            count += 1
            done.set()
            stop.wait(0.02)  # or one of the others might wait for SQLite's lock longer than a writer's patience
    try:
        sql.open_store(settings)
    except errors.SchemaMismatch as refused:
        assert NEXT in refused.message  # noqa: PT017 - in a process of its own
        assert REVISIONS[-1] in refused.message  # noqa: PT017 - the same


def test_workers_that_run_during_an_upgrade_go_on_and_refuse_at_their_next_start(
    empty_url: str, settings: config.Settings, add_revision: Add
) -> None:
    migrations.upgrade(empty_url)
    there = elsewhere(settings, empty_url)
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    begun = [context.Event() for _ in range(4)]
    workers = [context.Process(target=_work_until, args=(there, stop, event)) for event in begun]
    for worker in workers:
        worker.start()
    assert all(event.wait(DEADLINE) for event in begun)
    add_revision('op.add_column("jobs", sa.Column("later", sa.Integer(), nullable=False, server_default="0"))')
    patiently(migrations.upgrade, empty_url)
    stop.set()
    for worker in workers:
        worker.join(DEADLINE)
        worker.kill()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert migrations.current(empty_url) == NEXT
    with closing(engine.Database(empty_url)) as database:
        query = "SELECT count(*) FROM jobs WHERE state <> 'failed' OR later <> 0"
        assert database.read(lambda connection: connection.exec_driver_sql(query).scalar_one()) == 0


def test_upgrade_that_raises_at_its_end_leaves_the_old_schema_whole(empty_url: str, add_revision: Add) -> None:
    migrations.upgrade(empty_url)
    fill(empty_url, KEPT[-1])
    with closing(engine.Database(empty_url)) as database:
        before = database.read(pictures)
        add_revision(
            'op.add_column("jobs", sa.Column("later", sa.Integer(), nullable=True))\n'
            'op.execute("UPDATE jobs SET later = 1")\n'
            'op.drop_table("step_metrics")\n'
            'raise RuntimeError("by design")'
        )
        with pytest.raises(RuntimeError, match="by design"):
            migrations.upgrade(empty_url)
        assert database.read(pictures) == before
    assert migrations.current(empty_url) == REVISIONS[-1]


def _upgrade_with_others(url: str, gate: Any) -> None:
    gate.wait(DEADLINE)
    patiently(migrations.upgrade, url)


def test_two_upgrades_of_a_filled_database_are_one(empty_url: str, add_revision: Add) -> None:
    migrations.upgrade(empty_url)
    fill(empty_url, KEPT[-1])
    # A second run of it would fail: the column is there already.
    add_revision('op.add_column("jobs", sa.Column("later", sa.Integer(), nullable=True))')
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    upgrades = [context.Process(target=_upgrade_with_others, args=(empty_url, gate)) for _ in range(2)]
    for upgrade in upgrades:
        upgrade.start()
    for upgrade in upgrades:
        upgrade.join(DEADLINE)
        upgrade.kill()
    assert [upgrade.exitcode for upgrade in upgrades] == [0, 0]
    assert migrations.current(empty_url) == NEXT
