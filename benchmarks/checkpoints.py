"""Checkpoints of one training: `python -m benchmarks.checkpoints NETWORK`.

Prints the seconds that orch's take and those of torch.save and fsync, written in turns, as two JSON lists.
"""

import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import measure
from orchestrator.core import specs
from worker.training import checkpoint, trainer


def stepped(network: str) -> trainer.Trainer:
    """Return a training after its first step, which makes the optimizer's state."""
    spec = specs.parse({"network": network, "image_size": 32, "batch_size": 2, "epochs": 1})
    learner = trainer.Trainer(spec, data_hash="", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=1000)
    learner.model.train()
    learner.train_step(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    learner.settle()
    return learner


def orch(learner: trainer.Trainer, folder: Path) -> float:
    """Return the seconds of the engine's own checkpoint."""
    start = time.perf_counter()
    path, _, _ = checkpoint.write(learner.capture(), folder / "checkpoints")
    taken = time.perf_counter() - start
    path.unlink()
    return taken


def plain(learner: trainer.Trainer, folder: Path) -> float:
    """Return the seconds of a careful notebook's."""
    path, start = folder / "plain.pt", time.perf_counter()
    with path.open("wb") as file:
        torch.save({"model": learner.model.state_dict(), "optimizer": learner.optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    taken = time.perf_counter() - start
    path.unlink()
    return taken


def main(network: str) -> None:
    """Write one after the other, of a training after its first step."""
    learner = stepped(network)
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as folder:
        sides = [functools.partial(side, learner, Path(folder)) for side in (orch, plain)]
        print(json.dumps(measure.in_turns(*sides)))


if __name__ == "__main__":
    main(sys.argv[1])
