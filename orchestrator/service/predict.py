"""Predictions of a trained job."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import config, errors
from orchestrator.service import asking, trained
from orchestrator.store.base import Store

#: Endings that are taken from a folder; a file that is named is taken whatever its ending.
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A class and how sure the network is of it."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network makes of one picture: guesses, or why there are none."""

    image: str
    guesses: tuple[Guess, ...]
    error: str | None = None


def predict(
    settings: config.Settings, store: Store, text: str, paths: Sequence[Path], *, top: int = 1
) -> Iterator[Prediction]:
    """Yield what the best checkpoint of the job makes of each picture, in their order.

    Raises:
        NotFound: no such job or picture, or a job without a checkpoint.
        OrchError: torch is missing, or the process failed.

    """
    job = store.find(text)
    wanted = {"images": [str(path) for path in pictures(paths)], "top": top}
    yield from map(_prediction, trained.ask(settings, store, job, "worker.training.predict", wanted))


def pictures(paths: Sequence[Path]) -> list[Path]:
    """Return the files named, folders replaced by the pictures below them; raises NotFound."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
            if not inside:
                raise errors.NotFound(f"There is no picture below {path}.")
            found.extend(inside)
        elif path.is_file():
            found.append(path)
        else:
            raise errors.NotFound(f"There is no picture {path}.")
    if not found:
        raise errors.NotFound("No picture is named.")
    return [path.absolute() for path in found]


def _prediction(answer: asking.Answer) -> Prediction:
    guesses = tuple(
        Guess(label=str(guess["class"]), probability=float(guess["probability"]))
        for guess in answer.get("predictions", ())
    )
    return Prediction(image=str(answer["image"]), guesses=guesses, error=answer.get("error"))
