"""Checkpoints of one training: `python -m benchmarks.checkpoints NETWORK`.

Prints what orch's take and what torch.save with fsync takes, written in turns, as JSON: lists of the seconds that the
training stands still, and of the CPU seconds of all threads until the file is on disk. A training that leaves no core
free has these beside its steps.
"""

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import measure
from orchestrator.core import specs
from worker.training import checkpoint, saving, trainer


def stepped(network: str) -> trainer.Trainer:
    """Return a training after its first step, which makes the optimizer's state."""
    spec = specs.parse({"network": network, "image_size": 32, "batch_size": 2, "epochs": 1})
    learner = trainer.Trainer(spec, data_hash="", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=1000)
    learner.model.train()
    learner.train_step(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    learner.settle()
    return learner


def orch(learner: trainer.Trainer, writing: saving.Writing, folder: Path) -> tuple[float, float]:
    """Return the seconds of the engine's own checkpoint, and its CPU seconds."""

    def write(snapshot: checkpoint.Snapshot) -> None:
        path, _, _ = checkpoint.write(snapshot, folder / "checkpoints")
        path.unlink()

    def save() -> None:
        writing.begin(functools.partial(write, learner.capture()))

    return _taken(save, writing.wait)


def plain(learner: trainer.Trainer, folder: Path) -> tuple[float, float]:
    """Return those of a careful notebook's."""
    path = folder / "plain.pt"

    def save() -> None:
        with path.open("wb") as file:
            torch.save({"model": learner.model.state_dict(), "optimizer": learner.optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())

    return _taken(save, path.unlink)


def _taken(save: Callable[[], None], end: Callable[[], None]) -> tuple[float, float]:
    began, start = time.process_time(), time.perf_counter()
    save()
    stood = time.perf_counter() - start
    end()
    return stood, time.process_time() - began


def main(network: str) -> None:
    """Write one after the other, of a training after its first step; the first ones make the memory that stays."""
    learner = stepped(network)
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as folder, saving.Writing() as writing:
        sides = functools.partial(orch, learner, writing, Path(folder)), functools.partial(plain, learner, Path(folder))
        measure.in_turns(*sides, pairs=1)
        print(json.dumps([list(zip(*side, strict=True)) for side in measure.in_turns(*sides)]))


if __name__ == "__main__":
    main(sys.argv[1])
