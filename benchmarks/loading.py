"""P8: an epoch of training pictures and a later one, against ImageFolder and Pillow as in the notebook, two workers.

python -m benchmarks.loading [--photos ARCHIVE] [--pairs 5] [--write]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measure, place
from docs import markers
from orchestrator import config

#: Epochs of a side; the first one is apart, the others are its later ones.
EPOCHS = 3


def figures(*, archive: Path | None = None, pairs: int = measure.PAIRS) -> list[measure.Figure]:
    """Measure on photographs, of an archive or generated; a side's process is its own, and its caches are empty."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
        folder = place.photographs(Path(scratch), archive or named())
        peer, ours = measure.in_turns(lambda: epochs("notebook", folder), lambda: epochs("orch", folder), pairs=pairs)
    firsts, laters = zip(*peer, strict=True)
    first, later = zip(*ours, strict=True)
    what = {"pictures of the first epoch": (first, firsts, 1 / 2), "of a later epoch": (later, laters, 1 / 5)}
    return [
        measure.Figure(
            id="P8", what=name, peer="ImageFolder and Pillow, 2 workers", ours=mine, theirs=theirs, reach=reach
        )
        for name, (mine, theirs, reach) in what.items()
    ]


def epochs(side: str, folder: Path) -> tuple[float, float]:
    """Return the seconds of the first epoch and the mean of the later ones, all in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as home:
        command = [sys.executable, "-m", "benchmarks.epochs", side, str(folder), home, str(EPOCHS)]
        done = subprocess.run(
            command, cwd=place.ROOT, env=place.clean_environment(), check=True, stdout=subprocess.PIPE, text=True
        )
    first, *later = json.loads(done.stdout)
    return first, sum(later) / len(later)


def named() -> Path | None:
    """Return the archive that the environment names."""
    path = config.test_variable("ORCH_TEST_PHOTOS")
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
