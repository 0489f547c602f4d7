"""P12: the time until a fine-tuning is as accurate as plain full fine-tuning gets, from the same weights.

python -m benchmarks.tuning [--quick] [--write]

The weights have learned to tell how the training pictures were turned: `benchmarks.results` trains them, and keeps
them. The peer's best accuracy on the validation pictures is the target, and the time until it had that is the peer's;
ours is the time from the claim of a queued job's training until the database has the first epoch that reaches it, with
which the job is cancelled. One that never does counts as infinite. Ours finds the pictures of later seeds decoded
already, as any second job does.
Needs the photographs of ORCH_TEST_PHOTOS.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import loading, measure, place, results
from orchestrator import Client, config, errors
from orchestrator.core import jobs, networks
from orchestrator.core.states import JobState, Stage
from orchestrator.service import context

#: All weights learn from the first step on, in the numbers and the layout that the device is fastest at; an average of
#: the last ten steps' weights is as accurate as a rate that falls, and need not know when the end is.
OURS: Mapping[str, Any] = {
    **results.NETWORK,
    "crop_scale": (0.35, 1.0),
    "precision": "auto",
    "compile": True,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "lr": 4e-4,
    "ema": 0.9,
    "epochs": 12,
    "batch_size": 48,
    "loader_workers": 0,  # decoded pictures come fast, and processes beside it would keep the training waiting
}

#: Epochs of the plain loop, and pictures in a batch of it.
EPOCHS, BATCH = 10, 32

SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where both sides train: an installation, the photographs, and the job whose weights they begin with."""

    client: Client
    settings: config.Settings
    photographs: Path
    weights_of: str
    quick: bool

    @property
    def recipe(self) -> dict[str, Any]:
        """What both sides train, by ours."""
        return {**OURS, **(results.TINY if self.quick else {})}


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure seed by seed; nothing where no photographs are named."""
    if not quick and loading.named() is None:
        sys.stderr.write("P12 needs the photographs: ORCH_TEST_PHOTOS\n")
        return []
    ours, theirs = [], []
    with scene(quick=quick) as here:
        for seed in SEEDS[:1] if quick else SEEDS:
            epochs = plain(here, seed)
            target = max(accuracy for _, accuracy in epochs)
            theirs.append(reached(epochs, target))
            ours.append(queued(here, seed, target))
    return [
        measure.Figure(
            id="P12",
            what="fine-tuning to the accuracy that the peer reaches, from the same weights of another task",
            peer=f"plain full fine-tuning, {EPOCHS} epochs",
            ours=tuple(ours),
            theirs=tuple(theirs),
            reach=0.3,
        )
    ]


@contextmanager
def scene(*, quick: bool) -> Iterator[Scene]:
    """Make or find the installation of the results, and the weights in it."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
        folder = Path(scratch) if quick else results.FOLDER
        archive = loading.named()
        if quick or archive is None:
            photographs = place.sample(folder / "photographs", train=24, val=8)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            photographs = results.unpacked(archive, folder / "photographs")
        with results.installation(folder / "home") as client:
            first = results.rotated(client, 0, photographs, folder, quick=quick)
            settings = config.load(home=str(folder / "home"))
            yield Scene(client=client, settings=settings, photographs=photographs, weights_of=first.id, quick=quick)


def plain(here: Scene, seed: int) -> list[tuple[float, float]]:
    """Return seconds and accuracy of each epoch of the plain loop, in a fresh process."""
    with context.opened(here.settings) as opened:
        best = next(one for one in opened.store.checkpoints(here.weights_of) if one.best)
    recipe, weights = here.recipe, here.settings.artifact_dir / best.path
    options = {
        "network": json.dumps({name: recipe[name] for name in ("network", *networks.FIELDS) if name in recipe}),
        "size": recipe["image_size"],
        "batch": min(BATCH, recipe["batch_size"]),
        "epochs": 2 if here.quick else EPOCHS,
        "seed": seed,
    }
    named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plain_tuning", str(here.photographs), str(weights), *named],
        cwd=place.ROOT,
        env=place.clean_environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [(taken, accuracy) for taken, accuracy in json.loads(done.stdout)]


def queued(here: Scene, seed: int, target: float) -> float:
    """Return the seconds from the claim of our training until the database has an epoch as accurate as the target."""
    fields = {**here.recipe, "data": str(here.photographs), "weights": f"job:{here.weights_of}", "seed": seed}
    job = here.client.submit(**fields, name=f"tuned-{seed}", force=True)
    measure.wait_for(lambda: _trains(here.client.get(job)), seconds=600, every=0.05)
    start = time.monotonic()
    while True:
        has_ended = here.client.get(job).final
        if any(row.accuracy >= target for row in here.client.metrics(job) if row.split == "val"):
            taken = time.monotonic() - start
            with suppress(errors.IllegalMove):  # it was the last epoch
                here.client.cancel(job)
            measure.wait_for(lambda: here.client.get(job).final, seconds=60)
            return taken
        if has_ended:
            here.client.wait(job)  # raises where it failed
            return math.inf
        time.sleep(0.1)


def _trains(job: jobs.Job) -> bool:
    return job.final or (job.stage is not Stage.DOWNLOAD and job.state is not JobState.QUEUED)


def reached(epochs: list[tuple[float, float]], target: float) -> float:
    """Return the seconds of the first epoch that has an accuracy; infinite where none has."""
    return next((taken for taken, accuracy in epochs if accuracy >= target), math.inf)


if __name__ == "__main__":
    measure.command("benchmarks.tuning", figures)
