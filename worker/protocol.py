"""The words between a supervisor and the process that does the work.

Each message is one JSON object sent with `Connection.send_bytes`: nothing is ever unpickled. Up come progress,
metrics, checkpoints and the end; down goes `Stop`. The end of file on the pipe means that the other side has died.
"""

import json
import os
import struct
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticSerializationError

from orchestrator import failpoints
from orchestrator.core import networks
from orchestrator.core.jobs import Split
from orchestrator.core.specs import JobSpec
from orchestrator.core.states import Reason, Stage

#: A device that is no GPU.
CPU = "cpu"

#: Exit codes of the process that does the work.
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_STOPPED = 75
EXIT_FENCED = 76

#: Exit code of a fork server whose imports fail: another start of it would fail as well.
EXIT_UNUSABLE = 78

#: Entry points by stage, named as text: whoever supervises must not import torch.
ENTRY_POINTS: dict[Stage, str] = {
    Stage.DOWNLOAD: "worker.data.stage:main",
    Stage.TRAIN: "worker.training.stage:main_train",
    Stage.EVALUATE: "worker.training.stage:main_evaluate",
}


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckpointInfo(_Message):
    """A checkpoint that is whole on disk. `path` is below the artifact root, POSIX."""

    attempt: int
    epoch: int
    step: int
    path: str
    bytes: int
    sha256: str
    best: bool = False
    accuracy: float | None = None


class DatasetInfo(_Message):
    """A data set that is whole in this host's cache.

    `counts` has the keys train and val; `shared` counts the pictures of val that train has too.
    """

    hash: str
    source: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    bytes: int
    shared: int = 0
    path: str


class Assignment(_Message):
    """Everything that the process needs to do its stage; handed over when it is started."""

    attempt: int
    spec: JobSpec
    data_hash: str | None
    checkpoints: tuple[CheckpointInfo, ...]  #: the winning line, newest first: resume from the first that verifies
    start: CheckpointInfo | None = None  #: another job's: the network begins with its weights
    artifact_root: str  #: absolute path
    attempt_dir: str  #: absolute path, below the root; this attempt's alone
    data_dir: str  #: absolute path of the host's data cache
    devices: tuple[str, ...]  #: one for each rank: cpu, or the UUID of a GPU
    threads: int  #: CPU threads for torch
    memory: networks.Memory | None = None  #: what the training keeps for backward, where it is not as its spec says

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that CUDA shall see, by UUID; none where the devices are CPU slots."""
        return tuple(device for device in self.devices if device != CPU)


class Progress(_Message):
    """How far the stage is; also the sign of life that the stall timeout watches."""

    type: Literal["progress"] = "progress"
    done: int
    total: int | None = None
    unit: str = "steps"
    epoch: int | None = None
    epochs: int | None = None
    rate: float | None = None


class Steps(_Message):
    """Values of optimizer steps: (step, name, value) each."""

    type: Literal["steps"] = "steps"
    values: tuple[tuple[int, str, float], ...]


class Usage(_Message):
    """What an epoch's training took of its host: see `orchestrator.core.jobs.Usage`."""

    cores: float
    memory: int
    waiting: float
    gpu: float | None = None
    gpu_memory: int | None = None


class EpochMetrics(_Message):
    """Loss and accuracy of one split in one epoch."""

    epoch: int
    split: Split
    loss: float
    accuracy: float
    images: int
    seconds: float
    lr: float | None = None
    usage: Usage | None = None


class CheckpointWritten(_Message):
    """A checkpoint was written. One that closes an epoch brings the epoch's metrics: both are recorded at once."""

    type: Literal["checkpoint"] = "checkpoint"
    checkpoint: CheckpointInfo
    metrics: tuple[EpochMetrics, ...] = ()


class Resumed(_Message):
    """Training goes on from a checkpoint, or starts (attempt None, step 0)."""

    type: Literal["resumed"] = "resumed"
    attempt: int | None
    step: int


class Environment(_Message):
    """What the training runs on from here: see `orchestrator.core.provenance.Environment`."""

    type: Literal["environment"] = "environment"
    versions: dict[str, str]
    device: str
    cpu: str
    instructions: str
    threads: int
    layout: str
    precision: str
    seed: int
    compiled: bool = False
    code: str = ""
    tf32: bool = False
    cudnn_benchmark: bool = False


class DataReady(_Message):
    """The data set is whole in the cache."""

    type: Literal["data"] = "data"
    dataset: DatasetInfo


class Evaluated(_Message):
    """The best checkpoint's result on the validation split."""

    type: Literal["evaluated"] = "evaluated"
    checkpoint_step: int
    checkpoint_sha256: str
    loss: float
    accuracy: float
    images: int
    classes: tuple[str, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    seconds: float


class Note(_Message):
    """Something for the job's history: a damaged checkpoint, another thread count."""

    type: Literal["note"] = "note"
    kind: str
    detail: str


class Failed(_Message):
    """The stage cannot go on."""

    type: Literal["failed"] = "failed"
    reason: Reason
    error: str
    hint: str | None = None


class Ended(_Message):
    """The stage ended: done, or stopped after its checkpoint. The last message."""

    type: Literal["ended"] = "ended"
    how: Literal["done", "stopped"]
    last_step: int | None = None


class Stop(_Message):
    """Checkpoint at the next step and end."""

    type: Literal["stop"] = "stop"


Up = Annotated[
    Progress | Steps | CheckpointWritten | Resumed | Environment | DataReady | Evaluated | Note | Failed | Ended,
    Field(discriminator="type"),
]
_UP: TypeAdapter[Any] = TypeAdapter(Up)
_DOWN: TypeAdapter[Stop] = TypeAdapter(Stop)

#: What `Connection` sends before a message: its size, as long as it is below 2 GiB.
_SIZE = struct.Struct("!i")
_PIECE = 2**18


def encoded(message: BaseModel) -> bytes:
    """Return a message as it goes out; of a file whose name is no UTF-8 it has that name in part."""
    try:
        return message.model_dump_json().encode()
    except PydanticSerializationError:
        return json.dumps(message.model_dump(mode="json"), ensure_ascii=False).encode(errors="replace")


def send(connection: Connection, message: BaseModel) -> None:
    """Send one message; raises OSError when the other side has gone."""
    failpoints.reach("pipe.send")
    connection.send_bytes(encoded(message))


class Hearing:
    """Hears a working process, and never waits for the rest of a message: who says it may be frozen in the middle."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._come = bytearray()

    def messages(self) -> Iterator[Any]:
        """Yield the messages that have come whole; raises EOFError when the process has gone."""
        while self._connection.poll():
            piece = os.read(self._connection.fileno(), _PIECE)
            if not piece:
                raise EOFError
            self._come += piece
            while (content := self._whole()) is not None:
                failpoints.reach("pipe.receive")
                yield heard(content)

    def _whole(self) -> bytes | None:
        """Take out the next message, None where it has not come whole: its size is before it, as in `Connection`."""
        if len(self._come) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._come)
        end = _SIZE.size + size
        if size < 0 or len(self._come) < end:
            return None
        content = bytes(self._come[_SIZE.size : end])
        del self._come[:end]
        return content


def heard(content: bytes) -> Any:
    """Return the message that a working process has sent as these bytes."""
    return _UP.validate_json(content)


def receive_down(connection: Connection) -> Stop:
    """Return the next message from the supervisor; raises EOFError when it has gone."""
    failpoints.reach("pipe.obey")
    return _DOWN.validate_json(connection.recv_bytes())
