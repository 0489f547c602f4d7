"""P8: an epoch of training pictures and a cached one, against ImageFolder and Pillow as in the notebook, two workers.

python -m benchmarks.loading [--photos ARCHIVE] [--pairs 5] [--write]
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measure, place
from docs import markers
from orchestrator import environ
from worker import children

#: Epochs of a side; the first one is apart, the others are its later ones.
EPOCHS = 3
PIPELINES = ("compat", "fast")


def figures(*, archive: Path | None = None, pairs: int = measure.PAIRS) -> list[measure.Figure]:
    """Measure on photographs, of an archive or generated; a side's process is its own, and its caches are empty."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
        folder = place.photographs(Path(scratch), archive or named())
        sides = [functools.partial(epochs, side, folder) for side in ("notebook", *PIPELINES)]
        peer, *ours = measure.in_turns(*sides, pairs=pairs)
    return [
        measure.Figure(
            id="P8",
            what=f"pictures of {epoch}, `--pipeline {pipeline}`",
            peer="ImageFolder and Pillow, 2 workers",
            ours=tuple(seconds[part] for seconds in taken),
            theirs=tuple(seconds[part] for seconds in peer),
            reach=reach,
        )
        for pipeline, taken in zip(PIPELINES, ours, strict=True)
        for part, (epoch, reach) in enumerate({"the first epoch": 1 / 2, "a cached epoch": 1 / 5}.items())
    ]


def epochs(side: str, folder: Path) -> tuple[float, float]:
    """Return the seconds of the first epoch and the mean of the later ones, all in a fresh process.

    Ours has the variables of the fork server, as each training has them.
    """
    env = place.clean_environment(**(children.FORK_SERVER_ENVIRONMENT if side in PIPELINES else {}))
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as home:
        command = [sys.executable, "-m", "benchmarks.epochs", side, str(folder), home, str(EPOCHS)]
        done = subprocess.run(command, cwd=place.ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    first, *later = json.loads(done.stdout)
    return first, sum(later) / len(later)


def named() -> Path | None:
    """Return the archive that the environment names."""
    path = environ.of_tests("ORCH_TEST_PHOTOS")
    return Path(path) if path else None


def main() -> None:
    """Measure, print the lines and write them into the README where that is wished."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading")
    parser.add_argument("--photos", type=Path, help="their archive; else ORCH_TEST_PHOTOS, else they are generated")
    parser.add_argument("--pairs", type=int, default=measure.PAIRS)
    parser.add_argument("--write", action="store_true", help="write the lines into the README's table")
    given = parser.parse_args()
    measured = figures(archive=given.photos, pairs=given.pairs)
    print(measure.table(measured))
    if given.write:
        markers.write("figures", measure.replaced(markers.read("figures"), measured))


if __name__ == "__main__":
    main()
