"""The recorder writes in order and once; what cannot be written now waits, what never can is dropped."""

from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, specs, states
from orchestrator.store import sql
from worker import identity, protocol
from worker.recorder import Recorder


@pytest.fixture
def claim(store: sql.SqlStore) -> jobs.Claim:
    store.submit(jobs.NewJob(spec=specs.JobSpec(), user="tester"))
    stages = [states.Stage.DOWNLOAD]
    claim = store.claim(worker=identity.mine("test"), device="CPU", stages=stages, artifact_root="root")
    assert claim is not None
    return claim


@pytest.fixture
def recorder(store: sql.SqlStore, claim: jobs.Claim, tmp_path: Path) -> Recorder:
    return Recorder(store, claim, root=tmp_path, clock=clocks.SystemClock())


def _step(number: int) -> protocol.Steps:
    return protocol.Steps(values=((number, "loss", 1.0),))


def test_of_the_progress_made_while_the_database_was_away_only_the_newest_is_kept(
    recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    away = iter([True] * 50)

    def record(_claim: jobs.Claim, progress: jobs.Progress) -> None:
        if next(away, False):
            raise errors.DatabaseUnavailable(why="a test")
        written.append(progress.done)

    monkeypatch.setattr(store, "record_progress", record)
    for done in range(1, 51):
        recorder.take(protocol.Progress(done=done))
        recorder.take(_step(done))
        assert not recorder.flush()
    assert recorder.flush()
    assert written == [1, 50]
    assert [step.step for step in store.steps(claim.id)] == list(range(1, 51))


def test_a_write_that_can_never_succeed_is_dropped(
    recorder: Recorder, store: sql.SqlStore, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_claim: jobs.Claim, **_: object) -> None:
        raise ValueError("by design")

    monkeypatch.setattr(store, "note", refuse)
    recorder.take(protocol.Note(kind="odd", detail="too odd"))
    recorder.take(_step(1))
    with pytest.raises(ValueError, match="by design"):
        recorder.flush()
    assert recorder.flush()
    assert len(store.steps(claim.id)) == 1
