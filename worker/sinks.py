"""Trackers that also get a job's metrics: TensorBoard, MLflow, W&B, Trackio. Nothing waits for one or rests on it.

Each has a bounded queue and a thread. What does not fit is dropped, and the first error ends a sink for the attempt:
one warning each. The database knows everything in any case.
"""

import importlib
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator import config, log
from orchestrator.core import jobs, masking, states
from worker import protocol

_log = log.get("sinks")

#: Values that wait for a sink; a step has one or two.
_MOST_WAITING = 10_000

#: Seconds that the end of an attempt gives a sink; it goes on after that, as long as its process does.
_GOODBYE_SECONDS = 3.0

#: Where the trackers that know projects put ours.
PROJECT = "orch"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a tracker is told of a job. Every attempt goes on with the same run."""

    job: str
    name: str
    fields: Mapping[str, Any]  #: the spec, without secrets
    folder: Path  #: for trackers that write files


class Sink(Protocol):
    """One tracker's run; its methods may take their time and raise anything."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of an optimizer step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files below the home: `tensorboard --logdir $ORCH_HOME/tensorboard`."""

    def __init__(self, run: Run) -> None:
        self._writer = importlib.import_module("tensorboard.summary").Writer(str(run.folder / "tensorboard" / run.job))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of an optimizer step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """A run of the experiment `orch`, at the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: Run) -> None:
        self._client = importlib.import_module("mlflow.tracking").MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        found = self._client.search_runs([experiment], f"tags.`orch.job` = '{run.job}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            return
        self._id = self._client.create_run(experiment, run_name=run.name, tags={"orch.job": run.job}).info.run_id
        for name, value in run.fields.items():
            self._client.log_param(self._id, name, value)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of an optimizer step."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._client.set_terminated(self._id)


class Wandb:
    """A run of the project `orch` at W&B, or at Trackio, which has its interface."""

    def __init__(self, run: Run, *, module: str = "wandb") -> None:
        # W&B knows a run by its id, Trackio by its name.
        own = {"id": run.job, "name": run.name} if module == "wandb" else {"name": f"{run.name} {run.job}"}
        begin = importlib.import_module(module).init
        self._run = begin(project=PROJECT, config=dict(run.fields), resume="allow", **own)
        self._last = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of an optimizer step.

        W&B drops what is of an earlier step than the last one it has seen (https://docs.wandb.ai/ref/python/log), and
        what closes an epoch may come behind the first steps of the next: it is shown with the step that is there.
        """
        self._last = max(self._last, step)
        self._run.log(dict(values), step=self._last)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


_OPEN: dict[str, Callable[[Run], Sink]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": Wandb,
    "trackio": lambda run: Wandb(run, module="trackio"),
}


class _Feed:
    """Feeds one sink from a thread of its own."""

    def __init__(self, name: str, run: Run) -> None:
        self._name, self._run = name, run
        self._values: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_MOST_WAITING)
        self._complained = threading.Event()
        self._broken = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
        self._thread.start()

    def put(self, step: int, values: Mapping[str, float]) -> None:
        """Hand values over, or drop them where too many wait."""
        if self._broken.is_set():
            return
        try:
            self._values.put_nowait((step, values))
        except queue.Full:
            self._complain("it is too slow: values are left out")

    def close(self) -> None:
        """Let it write what waits, for a moment."""
        self._end()
        self._thread.join(_GOODBYE_SECONDS)

    def _end(self) -> None:
        """Put the word of the end behind what waits; where there is no room for it, in place of the oldest."""
        while True:
            with suppress(queue.Full):
                self._values.put_nowait(None)
                return
            with suppress(queue.Empty):
                self._values.get_nowait()

    def _work(self) -> None:
        try:
            sink = _OPEN[self._name](self._run)
            while (given := self._values.get()) is not None:
                sink.log(*given)
            sink.close()
        except ModuleNotFoundError as error:
            self._fail(f"{error.name} is not installed: pip install 'orch[{self._name}]'")
        except BaseException as error:  # noqa: BLE001 - a tracker's own code, which may even call exit
            self._fail(f"{type(error).__name__}: {masking.value(str(error))}")

    def _fail(self, why: str) -> None:
        self._broken.set()
        self._complain(why)

    def _complain(self, why: str) -> None:
        if not self._complained.is_set():
            self._complained.set()
            _log.warning("sink fails", sink=self._name, job=self._run.job, why=why)


class Sinks:
    """Everything that hears of an attempt."""

    def __init__(self, feeds: Sequence[_Feed]) -> None:
        self._feeds = feeds

    def take(self, message: Any) -> None:
        """Pass on what a process says of its training; never waits."""
        for step, values in _values(message) if self._feeds else ():
            for feed in self._feeds:
                feed.put(step, values)


@contextmanager
def opened(settings: config.Settings, claim: jobs.Claim) -> Iterator[Sinks]:
    """Open the sinks of the settings for an attempt; a download has nothing for them."""
    names = settings.sink_names if claim.job.stage is not states.Stage.DOWNLOAD else ()
    feeds = [_Feed(name, _run(settings, claim.job)) for name in names]
    try:
        yield Sinks(feeds)
    finally:
        for feed in feeds:
            feed.close()


def _run(settings: config.Settings, job: jobs.Job) -> Run:
    fields = job.spec.masked().model_dump(mode="json")
    return Run(job=job.id, name=job.name or job.id, fields=fields, folder=settings.home)


def _values(message: Any) -> Iterator[tuple[int, Mapping[str, float]]]:
    """Yield the values of a message by step: of steps as step/loss, of epochs as train/loss and val/accuracy."""
    if isinstance(message, protocol.Steps):
        by_step: dict[int, dict[str, float]] = defaultdict(dict)
        for step, name, value in message.values:
            by_step[step][f"step/{name}"] = value
        yield from by_step.items()
    elif isinstance(message, protocol.CheckpointWritten) and message.metrics:
        closed = {f"{one.split}/{name}": getattr(one, name) for one in message.metrics for name in ("loss", "accuracy")}
        yield message.checkpoint.step, closed
    elif isinstance(message, protocol.Evaluated):
        yield message.checkpoint_step, {f"evaluation/{name}": getattr(message, name) for name in ("loss", "accuracy")}
