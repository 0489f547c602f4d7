"""Between a command and a trained network in a process of its own: one request, and a line of JSON for each answer.

The request is JSON on standard input. Exit code: 0, 1 where an answer says that it is an error, 2 where the request
itself cannot be met: then the last line says why. Whatever else the libraries say goes to standard error.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator import errors
from orchestrator.core import specs
from worker.models import densenet, zoo
from worker.training import checkpoint

EXIT_REFUSED = 2

#: What is said of a network, line by line.
Answer = dict[str, Any]
Say = Callable[[Answer], None]


class Request(BaseModel):
    """Which checkpoint. Paths are absolute; `classes` is in the order of the network's logits."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    checkpoint: Path
    sha256: str
    bytes: int
    spec: specs.JobSpec
    classes: tuple[str, ...] = Field(min_length=1)


Asked = TypeVar("Asked", bound=Request)


def serve(kind: type[Asked], work: Callable[[Asked, checkpoint.Checkpoint, Say], None]) -> int:
    """Let `work` answer the request on standard input, and return the exit code."""
    said, failed = sys.stdout, False

    def say(answer: Answer) -> None:
        nonlocal failed
        failed |= "error" in answer
        said.write(json.dumps(answer) + "\n")
        said.flush()

    try:
        with contextlib.redirect_stdout(sys.stderr):
            request = kind.model_validate_json(sys.stdin.buffer.read())
            saved = checkpoint.read(request.checkpoint, size=request.bytes, sha256=request.sha256)
            work(request, saved, say)
    except ValidationError as error:
        say({"refused": {"message": f"The request cannot be read: {error}"}})
    except checkpoint.Damaged as error:
        message = f"The checkpoint {request.checkpoint} cannot be used: {error}."
        say({"refused": {"message": message}})
    except errors.OrchError as error:
        say({"refused": {"message": error.message, "why": error.why, "hint": error.hint}})
    else:
        return int(failed)
    return EXIT_REFUSED


def network(request: Request, saved: checkpoint.Checkpoint) -> densenet.DenseNet:
    """Return the request's network with its trained weights, ready to be used on the CPU."""
    built = zoo.build(request.spec, len(request.classes))
    built.load_state_dict(saved.weights())
    return built.eval()
