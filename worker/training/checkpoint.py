"""Checkpoint files: one safetensors file each, whole on disk before anyone hears of it, verified before it is used.

Tensors are named `model.…`, `ema.…` where an average of the weights is kept, `optimizer.…` and `rng.…`; everything else
is JSON in the file's metadata.
"""

import hashlib
import json
import operator
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from orchestrator import disk, errors, failpoints
from orchestrator.core import specs, states
from worker import durable, protocol
from worker.training import divergence, metrics, numerics, packing

#: Key of the state in the file's metadata. There is one key only: with several, their order would be random.
_STATE = "orch"

#: Bytes that must stay free behind a checkpoint: for logs, and for the database where it shares the disk.
_MARGIN = 16 * 2**20


#: Scale of fp16's losses below which no step was made for long: it begins at 65,536, and each left-out step halves it.
_LEAST_SCALE = 2.0**-24

_HINT = "Free space on the disk of the artifacts, or set ORCH_ARTIFACTS to a larger one, then `orch retry` the job."


class Damaged(Exception):
    """A checkpoint cannot be used; the text says why."""


class State(BaseModel):
    """Everything in a checkpoint that is no tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    spec: specs.JobSpec
    data_hash: str
    classes: tuple[str, ...]
    epoch: int  #: epochs completed
    step: int  #: optimizer steps completed, over the whole training
    sums: metrics.Sums  #: training split, the epoch in work
    best_accuracy: float | None  #: best validation accuracy so far
    #: What patience looks at, of each epoch; left out where there is nothing, as by earlier versions.
    watched: tuple[float, ...] = Field((), exclude_if=operator.not_)
    optimizer: list[dict[str, Any]]  #: its parameter groups
    scaler: dict[str, Any] = Field({}, exclude_if=operator.not_)  #: of the gradients of fp16; empty for other numbers
    generators: numerics.Generators
    numerics: numerics.Numerics

    @field_validator("spec", mode="before")
    @classmethod
    def _restore_spec(cls, kept: Any) -> Any:
        return specs.JobSpec.restored(kept) if isinstance(kept, dict) else kept

    @field_serializer("spec")
    def _keep_spec(self, spec: specs.JobSpec) -> dict[str, Any]:
        return spec.kept()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint in memory; its tensors are on the CPU."""

    state: State
    tensors: dict[str, torch.Tensor]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors below `name.`, without it."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights to be used: their running average where the training keeps one."""
        return self.part("ema") or self.part("model")


@dataclass(frozen=True, kw_only=True)
class Snapshot(Checkpoint):
    """A training as it was at one moment; its tensors are held until the next one is taken."""

    held: packing.Held

    def pieces(self) -> Iterator[durable.Bytes]:
        """Yield the pieces of its file, in order.

        Raises:
            StageFailed: diverged, when something in it is not finite, or no step of fp16 moves the weights any more.

        """
        self.held.arrived()
        if self.state.scaler.get("scale", 1.0) < _LEAST_SCALE:
            raise self._diverged(f"The gradients overflow in fp16 at every step before step {self.state.step}.")
        yield self.held.header({_STATE: self.state.model_dump_json()})
        for numbers in self.held.pieces():
            if not packing.finite(numbers):
                raise self._diverged(f"Weights or optimizer are not finite after step {self.state.step}.")
            yield numbers.view(torch.uint8).numpy().data

    def _diverged(self, said: str) -> errors.StageFailed:
        return divergence.failure(said, lr=self.state.optimizer[0]["lr"])


def unpacked(content: bytes) -> Checkpoint:
    """Return the checkpoint that these bytes of a file are.

    Raises:
        Damaged: it is none.

    """
    try:
        tensors = safetensors.torch.load(content)
        state = State.model_validate_json(_metadata(content)[_STATE])
    except (safetensors.SafetensorError, KeyError) as error:
        raise Damaged("it is no checkpoint of orch") from error
    except ValidationError as error:
        raise Damaged("another version of orch wrote it") from error
    return Checkpoint(state=state, tensors=tensors)


def write(snapshot: Snapshot, folder: Path) -> tuple[Path, int, str]:
    """Write a checkpoint into `folder`, durably, and return its path, size in bytes and sha256.

    Raises:
        StageFailed: diverged, when something in it is not finite; disk_full, when the disk has no room or does not keep
            what it is given; nothing is left behind.

    """
    pieces, digest = [], hashlib.sha256()
    for piece in snapshot.pieces():
        digest.update(piece)  # at once: the look at its numbers has brought it into the cache
        pieces.append(piece)
    size = sum(map(len, pieces))
    path = folder / f"step-{snapshot.state.step:07}.safetensors"
    try:
        _write_durably(pieces, size, path)
    except OSError as error:
        raise errors.StageFailed(
            f"The checkpoint of step {snapshot.state.step} could not be written.",
            reason=states.Reason.DISK_FULL,
            why=f"{size:,} bytes to {folder}: {error.strerror or error}.",
            hint=_HINT,
        ) from error
    return path, size, digest.hexdigest()


def check_room(size: int, folder: Path) -> None:
    """Refuse to train for hours where not even one checkpoint of `size` bytes could be written.

    Raises:
        StageFailed: disk_full, with how much is needed.

    """
    try:
        _require_room(size, folder)
    except OSError as error:
        raise errors.StageFailed(
            "There is no room for a checkpoint.",
            reason=states.Reason.DISK_FULL,
            why=f"It takes {size:,} bytes in {folder}: {error}.",
            hint=_HINT,
        ) from error


def read(path: Path, *, size: int, sha256: str) -> Checkpoint:
    """Return the checkpoint at `path`, whose size and digest are known. The bytes that are hashed are those parsed.

    Raises:
        Damaged: the file is missing, is not the one that was written, or is no checkpoint.

    """
    try:
        failpoints.reach("checkpoint.read")
        found = path.stat().st_size
        if found != size:
            raise Damaged(f"it has {found:,} bytes, not {size:,}")
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Damaged("its sha256 is another")
    return unpacked(content)


def first_valid(
    infos: Sequence[protocol.CheckpointInfo],
    *,
    root: Path,
    check: Callable[[State], None],
    damaged: Callable[[str], None],
) -> tuple[protocol.CheckpointInfo, Checkpoint] | None:
    """Return the first of `infos` that is whole, lies below `root` and passes `check`; None where there are none.

    `check` raises `Damaged` on a state that does not fit; `damaged` is told of every checkpoint that is passed over.

    Raises:
        StageFailed: no_valid_checkpoint, when there are some and none can be used.

    """
    for info in infos:
        try:
            found = read(below(root, info.path), size=info.bytes, sha256=info.sha256)
            check(found.state)
        except Damaged as error:
            damaged(f"{info.path}: {error}")
        else:
            return info, found
    if infos:
        raise errors.StageFailed(
            f"None of the job's {len(infos)} checkpoints can be used.",
            reason=states.Reason.NO_VALID_CHECKPOINT,
            why="The job's events say what is wrong with each.",
            hint="Restore them from a backup; or train without them: `orch retry --from-start` the job.",
        )
    return None


def check_fit(state: State, *, spec: specs.JobSpec, data_hash: str, classes: tuple[str, ...]) -> None:
    """Raise `Damaged` if `state` is another training's.

    That of the same one with fewer epochs is its beginning, on however many devices: the batches are the same.
    """
    earlier = state.spec.model_copy(update={"gpus": spec.gpus})
    if not specs.is_extension(spec, earlier) or (state.data_hash, state.classes) != (data_hash, classes):
        raise Damaged("it belongs to another recipe or other data")


def below(root: Path, path: str) -> Path:
    """Return the absolute path of `path`, which is relative to `root`.

    Raises:
        Damaged: it leads out of the root.

    """
    relative = PurePosixPath(path)
    full = (root / relative).resolve()
    if relative.is_absolute() or not full.is_relative_to(root.resolve()):
        raise Damaged("it leads out of the artifact root")
    return full


def _metadata(content: bytes) -> dict[str, str]:
    # https://huggingface.co/docs/safetensors: eight bytes with the header's length, then the header in JSON.
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def _require_room(size: int, folder: Path) -> None:
    place = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(place).free
    if free < size + _MARGIN:
        raise OSError(f"{free:,} bytes are free, and {_MARGIN:,} of them are kept for logs and the database")


def _write_durably(pieces: Sequence[durable.Bytes], size: int, path: Path) -> None:
    failpoints.reach("checkpoint.mkdir")
    path.parent.mkdir(parents=True, exist_ok=True)
    _require_room(size, path.parent)
    disk.sync_folder(path.parent.parent)  # the attempt's folder: `path.parent` may be new in it
    durable.write(*pieces, path=path, place="checkpoint")
