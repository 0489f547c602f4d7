"""A tiny training: its data, its assignment, and the following end of its messages."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel

from orchestrator.core import specs
from tests.support import pictures
from worker import protocol

_Message = TypeVar("_Message", bound=BaseModel)


def dataset(
    folder: Path, *, train: int = 5, val: int = 3, classes: tuple[str, ...] = ("cats", "dogs")
) -> protocol.DatasetInfo:
    """Return a data set of `train` and `val` pictures a class, as the cache would hand it over."""
    root = pictures.image_folder(folder, classes=classes, splits={"train": train, "validation": val}, size=(12, 10))
    return protocol.DatasetInfo(
        hash=hashlib.sha256(str((train, val, classes)).encode()).hexdigest(),
        source="test",
        classes=classes,
        counts={"train": train * len(classes), "val": val * len(classes)},
        bytes=1000,
        path=str(root),
    )


def spec(**fields: Any) -> specs.JobSpec:
    """Return a recipe that trains in milliseconds: 3 steps an epoch on `dataset`'s ten pictures."""
    return specs.JobSpec(
        **{"network": "densenet_tiny", "image_size": 8, "batch_size": 4, "epochs": 3, "lr": 1e-2} | fields
    )


def assignment(
    root: Path, recipe: specs.JobSpec, *, attempt: int = 1, earlier: "tuple[Follower, ...]" = (), **fields: Any
) -> protocol.Assignment:
    """Return an attempt's assignment; `earlier` are the attempts before it, whose checkpoints it may go on from."""
    told = [message.checkpoint for follower in earlier for message in follower.of(protocol.CheckpointWritten)]
    given: dict[str, Any] = {
        "attempt": attempt,
        "spec": recipe,
        "data_hash": None,
        "checkpoints": tuple(sorted(told, key=lambda info: (info.step, info.epoch, info.attempt), reverse=True)),
        "artifact_root": str(root),
        "attempt_dir": str(root / f"testtest/attempt-{attempt}"),
        "data_dir": str(root / "data"),
        "devices": ("cpu",),
        "threads": 1,
    }
    return protocol.Assignment(**given | fields)


class Follower:
    """Takes messages; wishes a stop as soon as `stop` says so, which is asked at every look at the wish."""

    def __init__(self, stop: Callable[["Follower"], bool] = lambda _: False) -> None:
        self.messages: list[BaseModel] = []
        self.looks = 0  #: how often the work has looked whether it is to stop
        self._stop = stop

    @property
    def stop_requested(self) -> "Follower":
        return self

    def is_set(self) -> bool:
        self.looks += 1
        return self._stop(self)

    def send(self, message: BaseModel) -> None:
        # As the pipe does: what cannot travel as JSON fails here.
        self.messages.append(type(message).model_validate_json(message.model_dump_json()))

    def of(self, kind: type[_Message]) -> list[_Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def steps(self) -> list[tuple[int, str, float]]:
        return [value for message in self.of(protocol.Steps) for value in message.values]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The epochs' rows without their times and what they took of the host, which alone may differ."""
        return [
            row.model_dump(exclude={"seconds", "usage"})
            for message in self.of(protocol.CheckpointWritten)
            for row in message.metrics
        ]

    def last(self, root: Path) -> tuple[protocol.CheckpointInfo, dict[str, torch.Tensor]]:
        """Return the last checkpoint told of, and its tensors."""
        info = self.of(protocol.CheckpointWritten)[-1].checkpoint
        return info, safetensors.torch.load_file(root / info.path)


def stop_at(look: int) -> Callable[[Follower], bool]:
    """Return a wish that is there from the `look`-th look on: every place where the work may stop has its number."""
    return lambda follower: follower.looks >= look


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())
