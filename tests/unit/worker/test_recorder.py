"""The recorder writes in order and once; what cannot be written now waits, what never can is dropped."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import jobs, layout, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from worker import identity, journal, protocol
from worker.logtail import LogTail
from worker.recorder import Recorder, recover


@pytest.fixture
def claim(store: sql.SqlStore) -> jobs.Claim:
    store.submit(jobs.NewJob(spec=specs.JobSpec(), user="tester"))
    stages = [states.Stage.DOWNLOAD]
    claim = store.claim(worker=identity.mine("test"), device="CPU", stages=stages, artifact_root="root")
    assert claim is not None
    return claim


@pytest.fixture
def recorder(store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, clock: HandClock) -> Recorder:
    return Recorder(store, claim, root=tmp_path, clock=clock)


def _step(number: int) -> protocol.Steps:
    return protocol.Steps(values=((number, "loss", 1.0),))


def _written(
    root: Path, claim: jobs.Claim, step: int, *, epoch: int = 0, accuracy: float | None = None
) -> protocol.CheckpointWritten:
    """Write a file and return the message of its checkpoint, which closes an epoch where that was measured."""
    (root / f"step-{step}").write_bytes(b"weights")
    info = protocol.CheckpointInfo(
        attempt=claim.attempt,
        epoch=epoch,
        step=step,
        path=f"step-{step}",
        bytes=7,
        sha256="0" * 64,
        accuracy=accuracy,
    )
    rows = parts.epoch_rows(epoch, accuracy=accuracy) if accuracy is not None else []
    fields = [{name: value for name, value in asdict(row).items() if value is not None} for row in rows]
    metrics = tuple(protocol.EpochMetrics(**each) for each in fields)
    return protocol.CheckpointWritten(checkpoint=info, metrics=metrics)


class Away:
    """A store's switch: while it is `on`, every write finds the database away."""

    def __init__(self, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.after_commit = False  #: the write takes effect, and its answer is lost
        self._write = store.database.write
        monkeypatch.setattr(store.database, "write", self._maybe)

    def _maybe(self, work: Callable[[Connection], object], **named: Any) -> object:
        if self.after_commit:
            self._write(work, **named)
        if self.on or self.after_commit:
            raise errors.DatabaseUnavailable(why="a test")
        return self._write(work, **named)


@pytest.fixture
def away(store: sql.SqlStore, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch) -> Away:
    assert claim.attempt == 1
    return Away(store, monkeypatch)


def _journal(root: Path, claim: jobs.Claim) -> Path:
    folder = layout.attempt(root, claim.id, claim.attempt)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / journal.FILE


def test_what_is_said_while_the_database_is_away_is_written_in_order_and_once(
    *, recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    file = _journal(tmp_path, claim)
    for number in range(1, 51):
        recorder.take(protocol.Progress(done=number))
        recorder.take(_step(number))
        recorder.take(protocol.Note(kind="odd", detail=str(number)))
        assert not recorder.flush()
        clock.move(seconds=2)
    assert len(file.read_bytes().splitlines()) == 100
    recorder.take(protocol.Note(kind="odd", detail="51"))  # comes behind all that the journal holds
    away.on = False
    assert recorder.flush()
    assert not file.exists()
    assert [step.step for step in store.steps(claim.id)] == list(range(1, 51))
    notes = [event.detail for event in store.events(claim.id) if event.kind == "odd"]
    assert notes == [str(number) for number in range(1, 52)]
    assert store.get(claim.id).progress.done == 50


def test_a_write_whose_answer_is_lost_takes_effect_once(
    *, recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    file = _journal(tmp_path, claim)
    away.on, away.after_commit = False, True
    recorder.take(protocol.Note(kind="odd", detail="once"))
    recorder.take(_step(1))
    for _ in range(3):
        assert not recorder.flush()
        clock.move(seconds=2)
    away.after_commit = False
    assert recorder.flush()
    assert not file.exists()
    assert [event.kind for event in store.events(claim.id)].count("odd") == 1
    assert len(store.steps(claim.id)) == 1


def test_a_journal_whose_supervisor_died_is_replayed_while_its_attempt_stands(
    *, recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    file = _journal(tmp_path, claim)
    recorder.take(_step(1))
    recorder.end(jobs.Outcome(kind="drained", last_step=1))
    assert not recorder.flush()
    away.on = False
    recover(store, tmp_path, clock=clock, beat_every=5)
    assert file.exists()  # its supervisor holds the lock: it lives
    recorder.close(stale=False)
    with file.open("ab") as torn:
        torn.write(b'{"at": "2026-')
    recover(store, tmp_path, clock=clock, beat_every=5)
    assert not file.exists()
    assert len(store.steps(claim.id)) == 1
    job = store.get(claim.id)
    assert (job.state, job.total_retries) == (states.JobState.QUEUED, 0)
    assert store.attempts(claim.id)[-1].outcome == "drained"


def test_a_job_that_was_deleted_meanwhile_keeps_no_other_journal_from_being_replayed(
    *,
    recorder: Recorder,
    store: sql.SqlStore,
    claim: jobs.Claim,
    tmp_path: Path,
    away: Away,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = _journal(tmp_path, claim)
    recorder.end(jobs.Outcome(kind="drained"))
    assert not recorder.flush()
    recorder.close(stale=False)
    gone = layout.attempt(tmp_path, "00000000", 1) / journal.FILE
    gone.parent.mkdir(parents=True)
    gone.write_bytes(file.read_bytes())
    leases = [jobs.Lease(job_id="00000000", attempt=1, beat=0, worker="test"), *store.leases()]
    monkeypatch.setattr(store, "leases", lambda: leases)
    away.on = False
    recover(store, tmp_path, clock=clock, beat_every=5)
    assert store.get(claim.id).state is states.JobState.QUEUED
    assert not file.exists()


def test_nothing_of_a_stale_journal_is_written(
    *, recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    file = _journal(tmp_path, claim)
    recorder.take(_step(1))
    assert not recorder.flush()
    away.on = False
    (lease,) = store.leases()
    store.take_back(lease, actor="test", detail="a test")
    clock.move(seconds=2)
    with pytest.raises(errors.Stale):
        recorder.flush()
    recorder.close(stale=True)
    assert not file.exists()
    assert store.steps(claim.id) == []


def test_past_its_limit_a_journal_leaves_out_step_values_alone(
    *, recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    file = _journal(tmp_path, claim)
    recorder.adopt(journal.Journal(file, most_bytes=300))
    for number in range(1, 11):
        recorder.take(_step(number))
    recorder.take(protocol.Note(kind="odd", detail="kept"))
    assert not recorder.flush()
    away.on = False
    clock.move(seconds=2)
    assert recorder.flush()
    kept = len(store.steps(claim.id))
    assert 0 < kept < 10
    details = {event.kind: event.detail for event in store.events(claim.id)}
    assert details["odd"] == "kept"
    assert str(details["left_out"]).startswith(str(10 - kept))


@pytest.mark.parametrize("has_room", [True, False])
def test_what_was_left_out_is_said_before_the_end_behind_which_nothing_is_written(
    *,
    has_room: bool,
    recorder: Recorder,
    store: sql.SqlStore,
    claim: jobs.Claim,
    tmp_path: Path,
    away: Away,
    clock: HandClock,
) -> None:
    if has_room:  # for the end, if not for all steps
        recorder.adopt(journal.Journal(_journal(tmp_path, claim), most_bytes=300))
    for number in range(1, 11):
        recorder.take(_step(number))
    assert not recorder.flush()
    recorder.end(jobs.Outcome(kind="drained"))
    assert not recorder.flush()
    away.on = False
    clock.move(seconds=2)
    assert recorder.flush()
    assert recorder.ended is not None
    left_out = 10 - len(store.steps(claim.id))
    assert left_out > 0
    said = [event.detail for event in store.events(claim.id) if event.kind == "left_out"]
    assert said == [f"{left_out} messages with step values"]


def test_a_disk_that_takes_no_journal_costs_step_values_alone(
    recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, away: Away, clock: HandClock
) -> None:
    recorder.take(_step(1))  # its folder is not there
    recorder.take(protocol.Note(kind="odd", detail="kept"))
    assert not recorder.flush()
    away.on = False
    clock.move(seconds=2)
    assert recorder.flush()
    assert store.steps(claim.id) == []
    assert "odd" in [event.kind for event in store.events(claim.id)]


def test_a_write_that_can_never_succeed_is_dropped_with_all_behind_it(
    recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_claim: jobs.Claim, **_: object) -> None:
        raise ValueError("by design")

    monkeypatch.setattr(store, "record_resumed", refuse)
    recorder.take(protocol.Resumed(attempt=1, step=0))
    recorder.take(_step(1))
    with pytest.raises(ValueError, match="by design"):
        recorder.flush()
    assert recorder.flush()
    assert store.steps(claim.id) == []
    assert store.events(claim.id)[-1].detail == "what was said behind a write that failed: ValueError"
    recorder.end(jobs.Outcome(kind="failed", reason=states.Reason.INTERNAL))
    assert recorder.flush()
    assert recorder.ended is not None


def test_only_the_holder_of_the_lease_deletes_checkpoints(
    recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path
) -> None:
    for step in (1, 2, 3):
        recorder.take(_written(tmp_path, claim, step))
    assert recorder.flush()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2", "step-3"]

    store.take_back(store.leases()[0], actor="reconciler", detail="silent")
    recorder.take(_written(tmp_path, claim, 4))
    with pytest.raises(errors.Stale):
        recorder.flush()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2", "step-3", "step-4"]


def test_what_retention_lets_go_is_deleted_though_the_answer_was_lost(
    recorder: Recorder, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    away.on = False
    for step in (1, 2):
        recorder.take(_written(tmp_path, claim, step))
    assert recorder.flush()
    _journal(tmp_path, claim)
    away.after_commit = True
    recorder.take(_written(tmp_path, claim, 3))
    assert not recorder.flush()
    away.after_commit = False
    clock.move(seconds=2)
    assert recorder.flush()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2", "step-3"]


def test_checkpoints_do_not_pile_up_while_the_database_is_away(
    *, recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path, away: Away, clock: HandClock
) -> None:
    def files() -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in tmp_path.glob("step-*"))

    accuracies = {1: 0.5, 2: 0.6, 3: 0.4, 4: 0.9, 5: 0.7, 6: 0.8, 7: 0.7, 8: 0.9}
    _journal(tmp_path, claim)
    away.on = False
    for step, accuracy in accuracies.items():
        away.on = step > 2
        recorder.take(_written(tmp_path, claim, step, epoch=step, accuracy=accuracy))
        assert recorder.flush() is (step <= 2)
    # What has a row stays, for the row must mean something, and what was offered; else the last two and the best.
    assert files() == [1, 2, 3, 4, 7, 8]
    away.on = False
    clock.move(seconds=2)
    assert recorder.flush()
    assert files() == [4, 7, 8]
    assert [(point.step, point.best, point.last) for point in store.checkpoints(claim.id)] == [
        (8, False, True),
        (7, False, False),
        (4, True, False),
    ]
    assert [row.epoch for row in store.epochs(claim.id) if row.split == "val"] == list(accuracies)


def test_who_dies_before_the_journal_has_the_newer_checkpoints_leaves_the_older_ones(
    *, recorder: Recorder, claim: jobs.Claim, tmp_path: Path, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    _journal(tmp_path, claim)
    for step in (1, 2):
        recorder.take(_written(tmp_path, claim, step))
    assert away.on
    assert not recorder.flush()
    for step in (3, 4):
        recorder.take(_written(tmp_path, claim, step))
    monkeypatch.setattr(journal.Journal, "append", die)
    with pytest.raises(SystemExit):
        recorder.flush()
    assert {f"step-{step}" for step in (1, 2)} <= {path.name for path in tmp_path.glob("step-*")}
    recorder.close(stale=False)


def test_no_job_fails_of_a_log_that_cannot_be_read(
    recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path
) -> None:
    file = tmp_path / "log.txt"
    recorder.log = LogTail(file, attempt=claim.attempt, max_bytes=1000)  # gone, or on a disk with faults
    recorder.take(_step(1))
    with structlog.testing.capture_logs() as logs:
        assert recorder.flush()
        assert recorder.flush()
    assert [entry["event"] for entry in logs] == ["log cannot be read"]
    file.write_text("it is back\n", encoding="utf-8")
    assert recorder.flush()
    file.unlink()
    recorder.end(jobs.Outcome(kind="drained"))
    assert recorder.flush()
    assert recorder.ended is not None
    assert [chunk.text for chunk in store.logs(claim.id)] == ["it is back\n"]
