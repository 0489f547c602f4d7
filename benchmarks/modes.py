"""Whether what makes training faster or leaner costs accuracy: each mode against the plain training, five seeds each.

python -m benchmarks.modes [--quick]

Trains the packaged digits by jobs of an installation below .bench, which are kept as those of `benchmarks.results` are,
and writes the table of docs/results.md. A mode is within noise where the mean of its seeds differs from the plain one's
by less than twice the standard error of the difference (Welch's, of unequal variances).
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure, results
from docs import markers
from orchestrator import Client

FOLDER = results.FOLDER.with_name("modes")
SEEDS = tuple(range(5))

#: Long enough that the accuracy has settled, short enough for forty trainings.
RECIPE: Mapping[str, Any] = {
    "data": "digits",
    "network": "densenet_bc_40_12",
    "image_size": 16,
    "batch_size": 32,
    "optimizer": "adamw",
    "lr": 5e-3,
    "schedule": "one-cycle",
    "epochs": 4,
}

MODES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "--pipeline fast": {"pipeline": "fast"},
    "--layout channels_last": {"layout": "channels_last"},
    "--memory balanced": {"memory": "balanced"},
    "--memory lean": {"memory": "lean"},
    "--compile": {"compile": True},
    "--precision auto": {"precision": "auto"},
    "--compile --precision auto": {"compile": True, "precision": "auto"},
}

#: What `--quick` makes of the recipe.
_QUICK = {"network": "densenet_tiny", "image_size": 8, "epochs": 1, "batch_size": 128}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What one training came to: its best validation accuracy, and the loss of its last epoch on the training split."""

    accuracy: float
    loss: float


def ended(client: Client, mode: str, seed: int, *, quick: bool) -> Ended:
    """Train a mode with a seed, or find that it was trained."""
    fields = {**RECIPE, **(_QUICK if quick else {}), **MODES[mode], "seed": seed}
    job = results.trained(client, f"{mode.replace('--', '').replace(' ', '-')}-{seed}", fields)
    rows = client.metrics(job)
    return Ended(
        accuracy=max(row.accuracy for row in rows if row.split == "val"),
        loss=[row.loss for row in rows if row.split == "train"][-1],
    )


def noise(one: Sequence[float], other: Sequence[float]) -> float:
    """Return twice the standard error of the difference of two means."""
    return 2 * math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))


def table(found: Mapping[str, Sequence[Ended]]) -> str:
    """Return a row for each mode: bands over the seeds, and how far its means are from those of the plain one."""
    lines = [
        "| mode | validation accuracy | mean | from plain | noise | training loss | from plain | noise | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(mode, ends, found["plain"]) for mode, ends in found.items()]
    return "\n".join([*lines, "", measure.machine()])


def _row(mode: str, ends: Sequence[Ended], plain: Sequence[Ended]) -> str:
    right, losses = [end.accuracy for end in ends], [end.loss for end in ends]
    band = f"{min(right):.3f} to {max(right):.3f}"
    if ends is plain:
        return f"| {mode} | {band} | {statistics.mean(right):.4f} | | | {statistics.mean(losses):.4f} | | | |"
    pairs = ((right, [end.accuracy for end in plain]), (losses, [end.loss for end in plain]))
    apart = [(statistics.mean(own) - statistics.mean(theirs), noise(own, theirs)) for own, theirs in pairs]
    verdict = "within noise" if all(abs(difference) <= most for difference, most in apart) else "**differs**"
    (by_accuracy, most_accuracy), (by_loss, most_loss) = apart
    return (
        f"| `{mode}` | {band} | {statistics.mean(right):.4f} | {by_accuracy:+.4f} | {most_accuracy:.4f} "
        f"| {statistics.mean(losses):.4f} | {by_loss:+.4f} | {most_loss:.4f} | {verdict} |"
    )


def measured(folder: Path, *, quick: bool = False) -> dict[str, list[Ended]]:
    """Return what each mode came to, seed by seed."""
    seeds = SEEDS[:2] if quick else SEEDS
    with results.installation(folder / "home") as client:
        return {mode: [ended(client, mode, seed, quick=quick) for seed in seeds] for mode in MODES}


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.modes")
    parser.add_argument("--quick", action="store_true", help="two seeds of a tiny network: not for the page")
    if parser.parse_args().quick:
        with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
            print(table(measured(Path(scratch), quick=True)))
        return
    found = table(measured(FOLDER))
    markers.write("modes", found, file=results.PAGE)
    print(found)


if __name__ == "__main__":
    main()
