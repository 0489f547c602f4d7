"""What it costs to measure what a training takes: CPU seconds of the same training with and without, in turns."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import measure
from orchestrator import config
from orchestrator.core import specs
from worker import protocol
from worker.data import supply
from worker.training import __main__ as engine
from worker.training import stage, usage

RECIPE = {"data": "digits", "network": "densenet_tiny", "image_size": 16, "batch_size": 16, "epochs": 1, "lr": 1e-3}
PAIRS = 15


class Silent(engine.Printer):
    """Prints nothing."""

    def send(self, message: Any) -> None:
        """Take a message."""


class Nothing(usage.Gauge):
    """Measures nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def watched(self, items: Any) -> Any:
        """Return the items."""
        return items

    def end(self) -> protocol.Usage:
        """Return zeros."""
        return protocol.Usage(cores=0, memory=0, waiting=0)


def figure() -> measure.Figure:
    """Train in turns, and return the CPU seconds of each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        spec = specs.parse(RECIPE)
        settings = config.load(home=Path(folder))
        data = supply.ensure_data(spec, expected_hash=None, settings=settings, report=lambda _: None)

        def train(gauge: type[usage.Gauge]) -> Callable[[], float]:
            def run() -> float:
                with tempfile.TemporaryDirectory(dir=folder) as out, mock.patch.object(usage, "Gauge", gauge):
                    told = protocol.Assignment(
                        attempt=1,
                        spec=spec,
                        data_hash=None,
                        checkpoints=(),
                        artifact_root=out,
                        attempt_dir=out,
                        data_dir=str(settings.data_dir),
                        devices=("cpu",),
                        threads=1,
                    )
                    began = time.process_time()
                    stage.train(data, told, Silent())
                    return time.process_time() - began

            return run

        train(usage.Gauge)()  # what is done once only
        ours, theirs = measure.in_turns(train(usage.Gauge), train(Nothing), pairs=PAIRS)
    return measure.Figure(
        id="P9", what="training, measured", peer="training, not measured", ours=ours, theirs=theirs, reach=1.01
    )


if __name__ == "__main__":
    print(measure.table([figure()]))
