"""`python -m worker.training.predict`: what a checkpoint says of pictures, a line for each of them, in order."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import UnidentifiedImageError
from pydantic import Field

from worker import answers
from worker.data import augment, pixels
from worker.training import asked, checkpoint


class Request(asked.Request):
    """Which checkpoint, and which pictures."""

    images: tuple[Path, ...]
    top: int = Field(ge=1)


def main() -> int:
    """Answer the request on standard input."""

    def work(request: Request, saved: checkpoint.Checkpoint, say: answers.Say) -> None:
        for answer in predict(request, saved):
            say(answer)

    return asked.serve(Request, work)


def predict(request: Request, saved: checkpoint.Checkpoint) -> Iterator[answers.Answer]:
    """Yield the answer for each picture: its `top` likeliest classes, or what is wrong with it.

    A picture goes through the network alone, so that its probabilities do not depend on those beside it.
    """
    network = asked.network(request, saved)
    pictures = augment.Augmentation(request.spec)
    top = min(request.top, len(request.classes))
    for path in request.images:
        try:
            seen = pictures.normalised([pictures.validation(pixels.read(path))])
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise nearly everything on damaged files
            yield {"image": str(path), "error": _said(error)}
            continue
        with torch.inference_mode():
            likeliest = network(seen).softmax(dim=1)[0].topk(top)
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
