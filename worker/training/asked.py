"""What processes have in common that use a trained network for a command."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from orchestrator import errors
from orchestrator.core import specs
from worker import answers
from worker.models import densenet, zoo
from worker.training import checkpoint


class Request(answers.Request):
    """Which checkpoint. Paths are absolute; `classes` is in the order of the network's logits."""

    checkpoint: Path
    sha256: str
    bytes: int
    spec: specs.JobSpec
    classes: tuple[str, ...] = Field(min_length=1)


Asked = TypeVar("Asked", bound=Request)


def serve(kind: type[Asked], work: Callable[[Asked, checkpoint.Checkpoint, answers.Say], None]) -> int:
    """Let `work` answer the request on standard input with its checkpoint, and return the exit code."""

    def read(request: Asked, say: answers.Say) -> None:
        try:
            saved = checkpoint.read(request.checkpoint, size=request.bytes, sha256=request.sha256)
        except checkpoint.Damaged as error:
            raise errors.OrchError(f"The checkpoint {request.checkpoint} cannot be used: {error}.") from error
        work(request, saved, say)

    return answers.serve(kind, read)


def network(request: Request, saved: checkpoint.Checkpoint) -> densenet.DenseNet:
    """Return the request's network with its trained weights, ready to be used on the CPU."""
    built = zoo.build(request.spec, len(request.classes))
    built.load_state_dict(saved.weights())
    return built.eval()
