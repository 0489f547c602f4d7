from collections.abc import Callable

import pytest

from orchestrator import errors
from orchestrator.core import jobs, states
from orchestrator.store import models, sql
from tests.contract import parts

DATASET = jobs.Dataset(
    hash="d" * 64, source="digits", classes=("0", "1"), counts={"train": 2, "val": 1}, bytes=10, path="/data/d"
)
EVALUATION = jobs.Evaluation(
    attempt=1,
    checkpoint_step=10,
    checkpoint_sha256="e" * 64,
    loss=0.4,
    accuracy=0.75,
    images=4,
    classes=("cat", "dog"),
    precision=(0.5, 1.0),
    recall=(1.0, 0.5),
    confusion=((2, 0), (1, 1)),
    seconds=1.5,
)

#: Every fenced call of a supervisor.
WRITES: dict[str, Callable[[sql.SqlStore, jobs.Claim], object]] = {
    "beat": lambda store, held: store.beat(held),
    "wish": lambda store, held: store.wish(held),
    "progress": lambda store, held: store.record_progress(held, jobs.Progress(done=1)),
    "resumed": lambda store, held: store.record_resumed(held, attempt=None, step=7),
    "steps": lambda store, held: store.record_steps(held, parts.losses(1, 3)),
    "checkpoint": lambda store, held: store.record_checkpoint(held, parts.checkpoint(held, 99), parts.epoch_rows(1)),
    "epoch": lambda store, held: store.record_epoch(held, parts.epoch_rows(1), step=99),
    "dataset": lambda store, held: store.record_dataset(held, DATASET),
    "evaluation": lambda store, held: store.record_evaluation(held, EVALUATION),
    "log": lambda store, held: store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="late")),
    "environment": lambda store, held: store.record_environment(held, parts.ENVIRONMENT),
    "note": lambda store, held: store.note(held, kind="damaged", detail="late"),
    "done": lambda store, held: store.finish(held, parts.DONE),
    "failed": lambda store, held: store.finish(held, parts.failed(states.Reason.OOM)),
}


def drained(store: sql.SqlStore, held: jobs.Claim) -> None:
    store.finish(held, parts.DRAINED)


def taken_over(store: sql.SqlStore, held: jobs.Claim) -> None:
    store.take_back(store.leases()[0], actor="reconciler", detail="silent")
    parts.claimed(store, worker="worker-b")
    assert store.get(held.id).attempt == held.attempt + 1


def cancelled(store: sql.SqlStore, held: jobs.Claim) -> None:
    store.cancel(held.id, actor="ada")
    store.finish(held, jobs.Outcome(kind="cancelled"))


def picture(store: sql.SqlStore) -> dict[str, list[str]]:
    """Return every row of every table."""
    return store.database.read(
        lambda connection: {
            table.name: sorted(map(repr, connection.execute(table.select())))
            for table in models.metadata.tables.values()
        }
    )


def paused(store: sql.SqlStore, held: jobs.Claim) -> None:
    store.pause(held.id, actor="ada")
    store.finish(held, parts.PAUSED)


def deleted(store: sql.SqlStore, held: jobs.Claim) -> None:
    cancelled(store, held)
    store.delete(held.id, actor="ada")


@pytest.mark.parametrize("lose", [drained, taken_over, cancelled, paused, deleted])
def test_stale_attempt_writes_nothing(
    any_store: sql.SqlStore, lose: Callable[[sql.SqlStore, jobs.Claim], None]
) -> None:
    held = parts.training(any_store)
    lose(any_store, held)
    before = picture(any_store)
    for name, write in WRITES.items():  # each leaves the scene to the next as it was
        try:
            write(any_store, held)
        except errors.Stale:
            assert picture(any_store) == before, name
        else:
            pytest.fail(f"{name} of a stale attempt was let through")


@pytest.mark.parametrize("write", WRITES)
def test_holder_may_write(any_store: sql.SqlStore, write: str) -> None:
    held = parts.training(any_store)
    before = picture(any_store)
    WRITES[write](any_store, held)
    assert (picture(any_store) != before) is (write != "wish")  # which only looks


def test_failed_write_leaves_no_part_of_itself(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    before = picture(any_store)
    broken = parts.epoch_rows(0)  # epochs count from 1
    with pytest.raises(Exception, match="ranges"):
        any_store.record_checkpoint(held, parts.checkpoint(held, 10), broken)
    assert picture(any_store) == before
