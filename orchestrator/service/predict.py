"""Predictions of a trained job: the network runs in a process of its own, since the command line never loads torch."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator import config, errors, failpoints
from orchestrator.core.jobs import Checkpoint, Job
from orchestrator.service import node
from orchestrator.store.base import Store

#: Endings that are taken from a folder; a file that is named is taken whatever its ending.
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})

#: Exit code of the process where a picture could not be read; its line says why.
_SOME_UNREADABLE = 1


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
    node.need_torch()
    job = store.find(text)
    wanted = {"images": [str(path) for path in pictures(paths)], "top": top}
    while True:
        chosen, begun = _best(store.checkpoints(job.id), job), False
        try:
            for prediction in _run(settings, {**_network(settings, store, job, chosen), **wanted}):
                begun = True
                yield prediction
        except errors.OrchError:
            # A training that goes on removes the best so far as soon as it has recorded a better one.
            if begun or _best(store.checkpoints(job.id), job).path == chosen.path:
                raise
        else:
            return


def _run(settings: config.Settings, request: dict[str, object]) -> Iterator[Prediction]:
    with tempfile.TemporaryFile("w+") as said:
        yield from _answers(config.child_environment(settings), json.dumps(request), said)


def _answers(environment: dict[str, str], request: str, said: IO[str]) -> Iterator[Prediction]:
    failpoints.reach("predict.start")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.training.predict"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,  # a file: a pipe that nobody reads would block it
        env=environment,
        text=True,
    )
    with process:
        if process.stdin is None or process.stdout is None:
            raise errors.OrchError("The prediction's process has no pipes.")
        process.stdin.write(request)
        process.stdin.close()
        yield from (_prediction(json.loads(line)) for line in process.stdout)
    if process.returncode not in {0, _SOME_UNREADABLE}:
        said.seek(0)
        lines = said.read().strip().splitlines()
        raise errors.OrchError("The prediction failed.", why=lines[-1] if lines else None)


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
    return [path.absolute() for path in found]


def _network(settings: config.Settings, store: Store, job: Job, checkpoint: Checkpoint) -> dict[str, object]:
    dataset = store.dataset(job.data_hash) if job.data_hash else None
    file = settings.artifact_dir / checkpoint.path
    if dataset is None or not file.exists():
        raise errors.NotFound(
            f"The checkpoint of job {job.id} is not on this host.",
            why=f"{file} does not exist.",
            hint="Predict on a host that has its artifact folder, or set ORCH_ARTIFACTS.",
        )
    return {
        "checkpoint": str(file.absolute()),
        "sha256": checkpoint.sha256,
        "bytes": checkpoint.bytes,
        "spec": job.spec.model_dump(mode="json"),
        "classes": list(dataset.classes),
    }


def _best(checkpoints: Sequence[Checkpoint], job: Job) -> Checkpoint:
    if not checkpoints:
        raise errors.NotFound(
            f"Job {job.id} has no checkpoint yet.",
            why="The first one is written at the end of an epoch.",
            hint=f"`orch status {job.id}` says how far it is.",
        )
    return next((checkpoint for checkpoint in checkpoints if checkpoint.best), checkpoints[0])


def _prediction(line: dict[str, Any]) -> Prediction:
    guesses = tuple(
        Guess(label=str(guess["class"]), probability=float(guess["probability"]))
        for guess in line.get("predictions", ())
    )
    return Prediction(image=str(line["image"]), guesses=guesses, error=line.get("error"))
