"""`python -m worker.training.predict`: what a checkpoint says of pictures.

One JSON request on standard input, one JSON line on standard output for each picture, in order. Exit code: 0, 1 where
a picture could not be read, 2 where the request itself cannot be met (standard error says why).
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.core import specs
from worker.data import imagefolder, loader
from worker.models import zoo
from worker.training import checkpoint

EXIT_BAD_REQUEST = 2


class Request(BaseModel):
    """Which checkpoint, and which pictures. Paths are absolute; `classes` is in the order of the network's logits."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    checkpoint: Path
    sha256: str
    bytes: int
    spec: specs.JobSpec
    classes: tuple[str, ...] = Field(min_length=1)
    images: tuple[Path, ...]
    top: int = Field(ge=1)


def main() -> int:
    """Answer the request on standard input."""
    try:
        request = Request.model_validate_json(sys.stdin.buffer.read())
        saved = checkpoint.read(request.checkpoint, size=request.bytes, sha256=request.sha256)
    except ValidationError as error:
        sys.stderr.write(f"The request cannot be read: {error}\n")
        return EXIT_BAD_REQUEST
    except checkpoint.Damaged as error:
        sys.stderr.write(f"The checkpoint {request.checkpoint} cannot be used: {error}.\n")
        return EXIT_BAD_REQUEST
    failed = False
    for answer in predict(request, saved):
        failed |= "error" in answer
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return int(failed)


def predict(request: Request, saved: checkpoint.Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield the answer for each picture: its `top` likeliest classes, or what is wrong with it.

    A picture goes through the network alone, so that its probabilities do not depend on those beside it.
    """
    network = zoo.build(request.spec, len(request.classes))
    network.load_state_dict(saved.weights())
    network.eval()
    transform = loader.validation_transform(request.spec)
    top = min(request.top, len(request.classes))
    for path in request.images:
        try:
            with Image.open(path, formats=imagefolder.FORMATS) as file:
                pixels = transform(file.convert("RGB"))
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise nearly everything on damaged files
            yield {"image": str(path), "error": _said(error)}
            continue
        with torch.inference_mode():
            likeliest = network(pixels.unsqueeze(0)).softmax(dim=1)[0].topk(top)
        yield {
            "image": str(path),
            "predictions": [
                {"class": request.classes[index], "probability": probability}
                for probability, index in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
            ],
        }


def _said(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
