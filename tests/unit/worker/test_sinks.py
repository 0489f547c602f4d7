import math
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import event_file_loader

from orchestrator import config
from orchestrator.core import jobs, specs, states
from orchestrator.store import base
from tests.contract import parts
from tests.support.waiting import until
from worker import protocol, sinks

CANARY = "s3cr3t-canary"

CHECKPOINT = protocol.CheckpointInfo(attempt=2, epoch=1, step=2, path="x", bytes=1, sha256="0")
EPOCH = tuple(
    protocol.EpochMetrics(epoch=1, split=split, loss=loss, accuracy=0.5, images=4, seconds=1.0)
    for split, loss in (("train", 0.7), ("val", 0.8))
)
SAID = (
    protocol.Progress(done=1),
    protocol.Steps(values=((1, "loss", 0.9), (1, "lr", 0.1), (2, "loss", math.nan))),
    protocol.CheckpointWritten(checkpoint=CHECKPOINT, metrics=EPOCH),
    protocol.CheckpointWritten(checkpoint=CHECKPOINT),
)
EPOCH_VALUES = {"train/loss": 0.7, "train/accuracy": 0.5, "val/loss": 0.8, "val/accuracy": 0.5}


@pytest.fixture
def claim(store: base.Store) -> jobs.Claim:
    spec = specs.parse({"data": f"https://host/{'x'}.zip?token={CANARY}", "epochs": 3})
    return parts.training(store, spec=spec, name="first")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sink write all that it was told, however busy the machine is."""
    monkeypatch.setattr(sinks, "_GOODBYE_SECONDS", 60.0)


def feed(settings: config.Settings, claim: jobs.Claim, name: str, said: tuple[Any, ...] = SAID) -> None:
    with sinks.opened(settings.model_copy(update={"sinks": name}), claim) as opened:
        for message in said:
            opened.take(message)


def test_tensorboard_reads_what_was_said(settings: config.Settings, claim: jobs.Claim) -> None:
    feed(settings, claim, "tensorboard")
    (file,) = (settings.home / "tensorboard" / claim.id).iterdir()
    read = {
        (event.step, value.tag): value.tensor.float_val[0] if value.tensor.float_val else value.simple_value
        for event in event_file_loader.EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }
    assert read.keys() == {(1, "step/loss"), (1, "step/lr"), (2, "step/loss"), *((2, name) for name in EPOCH_VALUES)}


class Recorded:
    """Calls of a tracker, as its real signatures take them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []


class Tracker(Recorded):
    """The run of wandb.init and trackio.init: https://docs.wandb.ai/ref/python/, https://huggingface.co/docs/trackio."""

    def init(
        self,
        project: str,
        *,
        name: str,
        id: str | None = None,  # noqa: A002 - W&B's name
        config: dict[str, Any],
        resume: str,
    ) -> "Tracker":
        self.calls.append((project, name, id, config["epochs"], resume))
        assert CANARY not in str(config)
        return self

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        self.calls.append((step, data))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.mark.parametrize("module", ["wandb", "trackio"])
def test_wandb_and_trackio_go_on_with_the_job_s_run(
    module: str, settings: config.Settings, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(init=tracker.init))
    feed(settings, claim, module)
    begun, *logged, ended = tracker.calls
    own = ("first", claim.id) if module == "wandb" else (f"first {claim.id}", None)
    assert begun == ("orch", *own, 3, "allow")
    assert [step for step, _ in logged] == [1, 2, 2]
    assert logged[0][1] == {"step/loss": 0.9, "step/lr": 0.1}
    assert logged[2][1] == EPOCH_VALUES
    assert ended == ("finish",)


def test_wandb_is_told_of_no_step_before_the_last_one(
    settings: config.Settings, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops such values; those of an epoch come with its checkpoint, which is written while the next steps run."""
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=tracker.init))
    feed(settings, claim, "wandb", (protocol.Steps(values=((5, "loss", 0.5),)), *SAID[2:]))
    logged = [call for call in tracker.calls if isinstance(call[0], int)]
    assert [step for step, _ in logged] == [5] * len(logged)
    assert logged[-1][1] == EPOCH_VALUES


class MlflowClient(Recorded):
    """https://mlflow.org/docs/latest/python_api/mlflow.client.html."""

    runs: list[Any] = []  # noqa: RUF012 - what its server would keep

    def get_experiment_by_name(self, name: str) -> Any:
        assert name == "orch"
        return types.SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name: str) -> str:
        assert name == "orch"
        return "7"

    def search_runs(self, experiment_ids: list[str], filter_string: str, *, max_results: int) -> list[Any]:
        assert (experiment_ids, max_results) == (["7"], 1)
        return [run for run in self.runs if f"'{run.tags['orch.job']}'" in filter_string]

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, str]) -> Any:
        assert experiment_id == "7"
        run = types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_name), tags=tags, said=[])
        self.runs.append(run)
        return run

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        self._run(run_id).said.append((key, value))

    def log_metric(self, run_id: str, key: str, value: float, *, step: int = 0) -> None:
        self._run(run_id).said.append((key, value, step))

    def set_terminated(self, run_id: str) -> None:
        self._run(run_id).said.append("end")

    def _run(self, run_id: str) -> Any:
        return next(run for run in self.runs if run.info.run_id == run_id)


def test_mlflow_goes_on_with_the_job_s_run(
    settings: config.Settings, claim: jobs.Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "runs", [])
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mlflow.tracking", types.SimpleNamespace(MlflowClient=MlflowClient))
    feed(settings, claim, "mlflow")
    feed(settings, claim, "mlflow", SAID[2:3])
    (run,) = MlflowClient.runs
    assert (run.info.run_id, run.tags) == ("first", {"orch.job": claim.id})
    assert run.said.count(("epochs", 3)) == 1
    assert run.said.count(("val/loss", 0.8, 2)) == 2
    assert CANARY not in str(run.said)
    assert run.said[-1] == "end"


def test_a_sink_that_fails_is_one_warning(
    settings: config.Settings,
    claim: jobs.Claim,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise SystemExit(f"no access to https://ada:{CANARY}@host/")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=fail))
    monkeypatch.setitem(sys.modules, "trackio", None)
    feed(settings, claim, "wandb,trackio", SAID * 3)
    said = "".join(capsys.readouterr())
    assert said.count("sink fails") == 2
    assert "SystemExit" in said
    assert "pip install 'orch[trackio]'" in said
    assert CANARY not in said


def test_a_slow_sink_keeps_nobody_waiting(
    settings: config.Settings,
    claim: jobs.Claim,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    go = threading.Event()
    tracker = Tracker()

    def begin(**_: object) -> Tracker:
        go.wait(60)
        return tracker

    monkeypatch.setattr(sinks, "_MOST_WAITING", 3)
    monkeypatch.setattr(sinks, "_GOODBYE_SECONDS", 0.05)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=begin))
    feed(settings, claim, "wandb", SAID * 10)  # would never come back where anything waited
    go.set()
    assert "".join(capsys.readouterr()).count("it is too slow") == 1
    until(lambda: ("finish",) in tracker.calls)  # what was full when the attempt ended is not left open


def test_a_download_and_a_home_without_sinks_open_none(settings: config.Settings, store: base.Store) -> None:
    parts.submit(store)
    held = parts.claimed(store, states.Stage.DOWNLOAD)
    before = set(threading.enumerate())
    with sinks.opened(settings.model_copy(update={"sinks": "tensorboard"}), held), sinks.opened(settings, held):
        assert set(threading.enumerate()) <= before  # a slow one of an earlier test may end meanwhile


@pytest.mark.parametrize(("text", "names"), [(None, ()), ("tensorboard, wandb", ("tensorboard", "wandb"))])
def test_sinks_are_names_with_commas(text: str | None, names: tuple[str, ...], tmp_path: Path) -> None:
    assert config.Settings(home=tmp_path, sinks=text).sink_names == names
    assert set(sinks._OPEN) == set(config.SINKS)
    with pytest.raises(ValueError, match="known sinks are"):
        config.Settings(home=tmp_path, sinks="tensorbord")
