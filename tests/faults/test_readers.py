"""Retention removes what somebody is about to read: they get the next one, or are told."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.core import jobs
from orchestrator.service import asking, predict
from orchestrator.service import trained as network
from orchestrator.store import sql
from tests.contract import parts
from tests.support import asked
from tests.unit.worker.training import support
from worker import protocol
from worker.training import stage

pytestmark = pytest.mark.slow


class Trained:
    """A job that trains: two checkpoints are on disk, the first of them is recorded."""

    def __init__(self, settings: config.Settings, store: sql.SqlStore, folder: Path) -> None:
        self.root = settings.artifact_dir
        data, follower = support.dataset(folder), support.Follower()
        recipe = support.spec(epochs=2)
        self.held = parts.training(store, spec=recipe)
        told = support.assignment(self.root, recipe, attempt_dir=str(self.root / self.held.id / "attempt-0002"))
        stage.train(data, told, follower)
        self.first, self.second = (
            jobs.Checkpoint(**{**message.checkpoint.model_dump(), "attempt": self.held.attempt, "accuracy": accuracy})
            for message, accuracy in zip(follower.of(protocol.CheckpointWritten), (0.5, 0.6), strict=True)
        )
        store.record_dataset(self.held, jobs.Dataset(**data.model_dump(exclude={"shared"})))
        store.record_checkpoint(self.held, self.first)
        self.picture = next(Path(data.path).rglob("*.png"))
        self._store = store

    def go_on(self) -> None:
        """Record the second checkpoint, which is better, and remove the first."""
        self._store.record_checkpoint(self.held, self.second)
        (self.root / self.first.path).unlink()


@pytest.fixture
def trained(settings: config.Settings, store: sql.SqlStore, tmp_path: Path) -> Iterator[Trained]:
    yield Trained(settings, store, tmp_path / "pictures")
    shutil.rmtree(settings.artifact_dir)


def _before_the_first(monkeypatch: pytest.MonkeyPatch, name: str, act: Any) -> list[Any]:
    """Call `act` before the first call of a step of the prediction; return the list of its calls."""
    owner = asking if name == "_answers" else network
    step, calls = getattr(owner, name), list[Any]()

    def acted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            act()
        return step(*args)

    monkeypatch.setattr(owner, name, acted)
    return calls


@pytest.mark.parametrize("moment", ["_network", "_answers"])  # before the look for the file, and before its process
def test_a_prediction_takes_the_better_one_that_replaced_what_it_had_chosen(
    trained: Trained, settings: config.Settings, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    asked.here(monkeypatch)
    calls = _before_the_first(monkeypatch, moment, trained.go_on)
    (prediction,) = predict.predict(settings, store, trained.held.id, [trained.picture])
    assert len(prediction.guesses) == 1
    assert len(calls) == 2


def test_a_prediction_whose_checkpoint_is_just_gone_is_told_so(
    trained: Trained, settings: config.Settings, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _before_the_first(monkeypatch, "_answers", (trained.root / trained.first.path).unlink)
    with pytest.raises(errors.OrchError, match="cannot be used: No such file"):
        list(predict.predict(settings, store, trained.held.id, [trained.picture]))
    assert len(calls) == 1
