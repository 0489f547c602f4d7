"""The real training stage, in which ranks fare badly: one is not waited for long, sleeps, or fails."""

import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from orchestrator import config
from worker import protocol
from worker.training import ranks, stage, trainer

ENTRY = f"{__name__}:train"
SECONDS = 10.0  #: more than ranks that both work wait for each other on a busy machine
ASLEEP = "asleep"
_NIGHT_SECONDS = 600


def train(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train as a worker does. Runs in a forked process of its own, which keeps the patch to itself."""
    mock.patch.object(ranks, "_PATIENCE", SECONDS / config.load().stall).start()
    return stage.main_train(assignment, connection)


def sleep(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train as a worker does, but that the second rank sleeps in its first step."""

    def asleep(learner: trainer.Trainer, *_: Any, **__: Any) -> None:
        if not learner.world.leads:
            (Path(assignment.attempt_dir) / ASLEEP).touch()
            time.sleep(_NIGHT_SECONDS)
        learner.world.total(torch.zeros(1))

    mock.patch.object(trainer.Trainer, "train_step", asleep).start()
    return stage.main_train(assignment, connection)


def fail(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train as a worker does, but that the second rank has no memory."""
    return _failing(MemoryError("none is left"), assignment, connection)


def break_off(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train as a worker does, but that a picture of the second rank ends early."""
    return _failing(EOFError("a picture ends early"), assignment, connection)


def _failing(error: Exception, assignment: protocol.Assignment, connection: Connection) -> int:
    step = trainer.Trainer.train_step

    def failing(learner: trainer.Trainer, *images: Any, **of: Any) -> None:
        if not learner.world.leads:
            raise error
        step(learner, *images, **of)

    mock.patch.object(trainer.Trainer, "train_step", failing).start()
    return stage.main_train(assignment, connection)
