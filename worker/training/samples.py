"""`python -m worker.training.samples`: validation pictures with what a checkpoint makes of them, on a contact sheet."""

import operator
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from pydantic import Field

from orchestrator import config, errors
from worker import answers, protocol
from worker.data import imagefolder, loader, supply
from worker.training import asked, checkpoint

#: Pixels: a picture's square, its two lines of words, and the gap around both.
_SIDE, _LINE, _GAP = 192, 18, 10

_RIGHT, _WRONG, _INK, _PAPER = "#1a7f37", "#b42318", "#333333", "#ffffff"


class Request(asked.Request):
    """Which checkpoint, and which pictures of its data; `sheet` None: no sheet."""

    data_hash: str
    which: Literal["worst", "best", "random"]
    count: int = Field(ge=1)
    sheet: Path | None
    threads: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture and what the network makes of it; classes are indices."""

    path: Path
    true: int
    predicted: int
    probability: float  #: of the predicted class
    true_probability: float


def main() -> int:
    """Answer the request on standard input."""
    return asked.serve(Request, show)


def show(request: Request, saved: checkpoint.Checkpoint, say: answers.Say) -> None:
    """Choose the pictures, draw their sheet and tell of each.

    Raises:
        OrchError: the data set is not on this host, or the sheet cannot be written.

    """
    torch.set_num_threads(request.threads)
    data = supply.here(request.spec, request.data_hash, settings=config.load())
    if data is None:
        raise errors.OrchError(
            "The data set of the job is not on this host.",
            why="Its pictures are in the cache of the host that trained it.",
            hint="Ask there, or bring it here: `orch evaluate` the job once.",
        )
    chosen = choose(look(request, saved, data, say), request.which, request.count, seed=request.spec.seed)
    if request.sheet is not None:
        try:
            sheet(chosen, request.classes).save(request.sheet)
        except OSError as error:
            raise errors.OrchError("The sheet cannot be written.", why=error.strerror or str(error)) from error
    for sample in chosen:
        say(
            {
                "image": str(sample.path),
                "true": request.classes[sample.true],
                "predicted": request.classes[sample.predicted],
                "probability": sample.probability,
                "true_probability": sample.true_probability,
            }
        )


@torch.inference_mode()
def look(request: Request, saved: checkpoint.Checkpoint, data: protocol.DatasetInfo, say: answers.Say) -> list[Sample]:
    """Return what the network makes of every picture of the validation split, in their order."""
    network = asked.network(request, saved)
    layout = imagefolder.discover(Path(data.path))
    pictures = iter(layout.pictures["val"])
    found: list[Sample] = []
    for images, _ in loader.Loader(data, request.spec).validation():
        for row in network(images).softmax(dim=1):
            picture = next(pictures)
            predicted = int(row.argmax())
            found.append(
                Sample(
                    path=layout.root / picture.path,
                    true=picture.label,
                    predicted=predicted,
                    probability=float(row[predicted]),
                    true_probability=float(row[picture.label]),
                )
            )
        say({"progress": {"done": len(found), "total": data.counts["val"], "unit": "images"}})
    return found


def choose(samples: Sequence[Sample], which: str, count: int, *, seed: int) -> list[Sample]:
    """Return so many: those whose true class is least or most probable, the extreme first, or some by `seed`."""
    if which == "random":
        return random.Random(seed).sample(samples, min(count, len(samples)))  # noqa: S311 - no secret
    return sorted(samples, key=operator.attrgetter("true_probability"), reverse=which == "best")[:count]


def sheet(samples: Sequence[Sample], classes: Sequence[str]) -> Image.Image:
    """Return the contact sheet: below each picture its true class, then the predicted one and how sure it is."""
    columns = min(len(samples), max(3, round(len(samples) ** 0.5 * 1.2)))
    rows = -(-len(samples) // columns)
    width, height = _SIDE + 2 * _GAP, _SIDE + 2 * _LINE + 2 * _GAP
    drawn = Image.new("RGB", (columns * width, rows * height), _PAPER)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(14)
    for number, sample in enumerate(samples):
        left, top = number % columns * width + _GAP, number // columns * height + _GAP
        drawn.paste(_square(sample.path), (left, top))
        hue = _RIGHT if sample.true == sample.predicted else _WRONG
        pen.rectangle((left - 2, top - 2, left + _SIDE + 1, top + _SIDE + 1), outline=hue, width=2)
        for line, (words, ink) in enumerate(
            [
                (f"true {classes[sample.true]}, {100 * sample.true_probability:.1f} %", _INK),
                (f"predicted {classes[sample.predicted]}, {100 * sample.probability:.1f} %", hue),
            ]
        ):
            pen.text((left, top + _SIDE + 3 + line * _LINE), _fitting(words, font), fill=ink, font=font)
    return drawn


def _square(path: Path) -> Image.Image:
    """Return the whole picture in the middle of a square; the pixels of a small one stay squares."""
    with Image.open(path, formats=imagefolder.FORMATS) as file:
        picture = file.convert("RGB")
    small = max(picture.size) < _SIDE // 2
    resample = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return ImageOps.pad(picture, (_SIDE, _SIDE), method=resample, color=_PAPER)


def _fitting(words: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Return as much of the words as fits below a picture, their end whole: it is the figure."""
    if font.getlength(words) <= _SIDE:
        return words
    name, figure = words.rsplit(", ", 1)
    while name and font.getlength(f"{name}…, {figure}") > _SIDE:
        name = name[:-1]
    return f"{name}…, {figure}"


if __name__ == "__main__":
    sys.exit(main())
