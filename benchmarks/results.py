"""What training on the photographs comes to: the notebook's recipe, one from scratch, one fine-tuned, three seeds each.

python -m benchmarks.results [--photos ARCHIVE] [--rows ROW …] [--seeds SEED …] [--quick]

Each run is a job of an installation below .bench, under a key of its own: what was ended in the middle goes on with
the next call, and what is done is not done again. A row a run is kept in .bench/results/runs.json, the table is written
into docs/results.md. `--quick` proves the way with a tiny network on a few pictures, in a folder that is gone
afterwards.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import loading, measure, place
from docs import markers
from orchestrator import Client, config
from orchestrator.core import jobs, specs

PAGE = markers.README.parent / "docs" / "results.md"
FOLDER = place.KEPT / "results"
SEEDS = (0, 1, 2)

#: Every so many-th training picture validates the rotations.
_HELD_OUT = 10
_TURNS = {
    "0": None,
    "90": Image.Transpose.ROTATE_90,
    "180": Image.Transpose.ROTATE_180,
    "270": Image.Transpose.ROTATE_270,
}

#: The network of both recipes that are not the notebook's: what pre-training learns must fit. DenseNet-121 itself takes
#: five times as long, for a thousand pictures.
NETWORK = {
    "network": "densenet121_imagenet",
    "growth_rate": 16,
    "blocks": (6, 8, 12, 8),
    "image_size": 64,
    "layout": "auto",
    "pipeline": "fast",
}

_SCRATCH = {
    **NETWORK,
    "crop_scale": (0.35, 1.0),
    "randaugment": 2,
    "mixup": 0.2,
    "label_smoothing": 0.1,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "lr": 2e-3,
    "schedule": "one-cycle",
    "ema": 0.99,
    "epochs": 60,
    "batch_size": 32,
}

#: No mirroring: a picture and its mirror image are turned alike, but a quarter to the left is not one to the right.
_ROTATIONS = {
    **NETWORK,
    "crop_scale": (0.35, 1.0),
    "flip": False,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "lr": 2e-3,
    "schedule": "one-cycle",
    "epochs": 8,
    "batch_size": 32,
}

_FINE = {**_SCRATCH, "head_epochs": 3, "head_lr": 3e-3, "lr": 5e-4, "schedule": "cosine", "epochs": 23}

#: What `--quick` makes of every recipe.
TINY = {
    "network": "densenet_tiny",
    "growth_rate": 4,
    "blocks": (1, 1),
    "image_size": 16,
    "epochs": 2,
    "batch_size": 4,
    "layout": "contiguous",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: a recipe, and the one whose weights it begins with."""

    name: str
    what: str
    fields: Mapping[str, Any]
    pretrained: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one job came to; the pre-training's time is its own, though each row of its seed rests on it."""

    row: str
    seed: int
    spec_hash: str
    accuracy: float  #: of the best checkpoint, on the validation pictures
    seconds: float  #: of all epochs, both splits
    before: float  #: seconds of its pre-training
    memory: int  #: bytes at the peak of the training's processes
    machine: str


ROWS = (
    Row(
        name="notebook", what="the notebook's recipe at 64 px", fields={"image_size": 64, "batch_size": 16, "epochs": 5}
    ),
    Row(name="scratch", what="from scratch: growth rate 16, blocks 6-8-12-8, the paper's stem, 64 px", fields=_SCRATCH),
    Row(
        name="fine-tuned",
        what="the same network, fine-tuned from weights that learned to tell how the training pictures were turned",
        fields=_FINE,
        pretrained=True,
    ),
)


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack the photographs, once, and return where their splits are."""
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}")
        place.photographs(draft, archive)
        draft.rename(folder)
    return next(found.parent for found in sorted(folder.rglob("train")) if found.is_dir())


def rotations(photographs: Path, folder: Path) -> Path:
    """Write the training pictures in four rotations, which are the classes; return the folder, made once."""
    if folder.exists():
        return folder
    draft = folder.with_name(f".{folder.name}")
    pictures = sorted(path for path in (photographs / "train").rglob("*") if path.is_file())
    for number, path in enumerate(pictures):
        split = "val" if number % _HELD_OUT == 0 else "train"
        with Image.open(path) as opened:
            upright = opened.convert("RGB")
        for name, turn in _TURNS.items():
            target = draft / split / name / f"{number}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            (upright if turn is None else upright.transpose(turn)).save(target, quality=92)
    return draft.rename(folder)


@contextmanager
def installation(home: Path) -> Iterator[Client]:
    """Open the installation in a folder that stays, with a node; the node goes in the end, its jobs are kept."""
    settings = {"home": str(home), "lock_dir": str(home / "locks")}
    variables = {config.variable(name): value for name, value in settings.items()}
    home.mkdir(parents=True, exist_ok=True)

    def orch(*words: str) -> None:
        subprocess.run([place.ORCH, *words], env=place.clean_environment(**variables), cwd=home, check=True)

    orch("up", "-d", "--devices", "cpu")
    try:
        with Client(home=home) as client:
            yield client
    finally:
        orch("down")


def trained(client: Client, name: str, fields: Mapping[str, Any]) -> jobs.Job:
    """Return the job of a recipe once it has succeeded, an earlier call's where there is one."""
    spec = specs.parse(fields)
    job = client.submit(**fields, name=name, idempotency_key=f"{name}-{spec.digest()[:16]}", force=True)
    return client.wait(job)


def rotated(client: Client, seed: int, photographs: Path, folder: Path, *, quick: bool = False) -> jobs.Job:
    """Return the job that learned from the training pictures in `photographs` how they were turned."""
    more = {"data": str(rotations(photographs, folder / "rotations")), "seed": seed, **(TINY if quick else {})}
    return trained(client, f"rotations-{seed}", {**_ROTATIONS, **more})


def run(client: Client, row: Row, seed: int, photographs: Path, folder: Path, *, quick: bool) -> Run:
    """Train a row with a seed, and its pre-training before it."""
    more = {"seed": seed, **(TINY if quick else {})}
    fields, before = {**row.fields, "data": str(photographs), **more}, 0.0
    if quick and row.pretrained:
        fields["head_epochs"] = 1
    if row.pretrained:
        first = rotated(client, seed, photographs, folder, quick=quick)
        fields["weights"], before = f"job:{first.id}", _seconds(client, first)
    job = trained(client, f"{row.name}-{seed}", fields)
    evaluation, epochs = client.evaluation(job), client.metrics(job)
    if evaluation is None:
        raise RuntimeError(f"job {job.id} has succeeded without an evaluation")
    return Run(
        row=row.name,
        seed=seed,
        spec_hash=job.spec.digest(),
        accuracy=evaluation.accuracy,
        seconds=_seconds(client, job),
        before=before,
        memory=max(epoch.usage.memory for epoch in epochs if epoch.usage is not None),
        machine=measure.machine(),
    )


def _seconds(client: Client, job: jobs.Job) -> float:
    return sum(epoch.seconds for epoch in client.metrics(job))


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Return the rows in Markdown: the band over the seeds that were run, times and memory at their largest."""
    lines = [
        "| recipe | seeds | validation accuracy | training | pre-training | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        mine = sorted((one for one in runs if one.row == row.name), key=lambda one: one.accuracy)
        cells = [row.what, *(_cells(mine) if mine else ["not run yet", "", "", "", ""])]
        lines.append(f"| {' | '.join(cells)} |")
    machines = " ".join(sorted({one.machine for one in runs}))
    return "\n".join(lines) + (f"\n\n{machines}" if machines else "")


def _cells(runs: Sequence[Run]) -> list[str]:
    seeds = ", ".join(str(seed) for seed in sorted(one.seed for one in runs))
    longest, before = max(one.seconds for one in runs), max(one.before for one in runs)
    worst, best = f"{runs[0].accuracy:.3f}", f"{runs[-1].accuracy:.3f}"
    return [
        seeds,
        best if len(runs) == 1 else f"{worst} to {best}",
        f"{longest / 60:.0f} min",
        f"{before / 60:.0f} min" if before else "",
        measure.mebibytes(max(one.memory for one in runs)),
    ]


def known(file: Path) -> list[Run]:
    """Return the runs that a file keeps."""
    return [Run(**row) for row in json.loads(file.read_text("utf-8"))] if file.exists() else []


def keep(file: Path, runs: Sequence[Run]) -> None:
    """Write the runs, whole or not at all."""
    draft = file.with_name(f".{file.name}")
    draft.write_text(json.dumps([asdict(one) for one in runs], indent=2) + "\n", "utf-8")
    draft.replace(file)


def measured(
    folder: Path,
    photographs: Path,
    *,
    rows: Sequence[Row] = ROWS,
    seeds: Sequence[int] = SEEDS,
    quick: bool = False,
) -> Iterator[list[Run]]:
    """Yield the runs that there are after each one that was missing."""
    file = folder / "runs.json"
    runs = known(file)
    done = {(one.row, one.seed) for one in runs}
    missing = [(row, seed) for seed in seeds for row in rows if (row.name, seed) not in done]
    if missing:
        with installation(folder / "home") as client:
            for row, seed in missing:
                runs.append(run(client, row, seed, photographs, folder, quick=quick))
                keep(file, runs)
                yield runs
    yield runs


def main() -> None:
    """Run what is missing, and write the table after each run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results")
    parser.add_argument("--photos", type=Path, help="their archive; else ORCH_TEST_PHOTOS")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="these alone")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="these alone")
    parser.add_argument("--quick", action="store_true", help="a tiny network on a few pictures: not for the page")
    given = parser.parse_args()
    if given.quick:
        with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
            sample = place.sample(Path(scratch) / "photographs", train=24, val=8)
            *_, runs = measured(Path(scratch), sample, seeds=SEEDS[:1], quick=True)
            print(table(ROWS, runs))
        return
    archive = given.photos or loading.named()
    if archive is None:
        parser.error("name the archive of the photographs: --photos, or ORCH_TEST_PHOTOS")
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [row for row in ROWS if given.rows is None or row.name in given.rows]
    for runs in measured(FOLDER, unpacked(archive, FOLDER / "photographs"), rows=rows, seeds=given.seeds):
        markers.write("results", table(ROWS, runs), file=PAGE)
        print(table(ROWS, runs), flush=True)


if __name__ == "__main__":
    main()
