"""The real training stage, which counts its steps in a file and dies where a test's plan says so."""

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import BaseModel

from orchestrator import failpoints
from worker import protocol
from worker.training import checkpoint, stage, trainer

ENTRY = f"{__name__}:train"
PLAN = "plan.json"
STEPS = "steps"
FAILPOINTS = "failpoints"


class Plan(BaseModel):
    """When the process kills itself; counts are of this attempt, from 1."""

    after_step: int | None = None
    after_write: int | None = None  #: when that checkpoint has its name, and nobody has heard of it


def train(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train as a worker does. Runs in a forked process of its own, which keeps the patches to itself."""
    folder = Path(assignment.attempt_dir)
    plan = Plan.model_validate_json((folder / PLAN).read_bytes())
    counter = os.open(folder / STEPS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(step: int) -> None:
        os.write(counter, b".")
        _die_if(step == plan.after_step)

    mock.patch.object(failpoints, "folder", return_value=folder / FAILPOINTS).start()
    _then(trainer.Trainer, "train_step", counted)
    _then(checkpoint, "write", lambda written: _die_if(written == plan.after_write))
    return stage.main_train(assignment, connection)


def steps(folder: Path) -> int:
    """Return how many steps the attempt of that folder has done."""
    try:
        return (folder / STEPS).stat().st_size
    except FileNotFoundError:
        return 0


def _then(owner: Any, name: str, after: Any) -> None:
    """Call `after` with the number of the call behind each call of `owner.name`."""
    original = getattr(owner, name)
    calls = 0

    def both(*args: Any, **fields: Any) -> Any:
        nonlocal calls
        result = original(*args, **fields)
        calls += 1
        after(calls)
        return result

    mock.patch.object(owner, name, both).start()


def _die_if(wished: bool) -> None:
    if wished:
        os.kill(os.getpid(), signal.SIGKILL)
