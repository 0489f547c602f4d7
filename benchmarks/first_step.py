"""P2: from the exec of `orch submit` to the end of the first optimizer step, against the plain loop as a script.

And against Ray, which has only begun its job then: its command has yet to import torch.

python -m benchmarks.first_step [--quick] [--write]
"""

import functools
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks import measure, place, rays
from orchestrator.cli import specflags

BATCH_SIZE = 16


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure on a warm idle worker, the data set in its cache, the tiny network."""
    pairs = 1 if quick else measure.PAIRS
    with tempfile.TemporaryDirectory() as scratch, place.node() as home:
        sample = place.sample(Path(scratch), train=BATCH_SIZE, val=4)
        ours = functools.partial(orch_first_step, home, sample)
        ours()  # fills the cache
        script = measure.in_turns(ours, lambda: plain_first_step(sample), pairs=pairs)
        with rays.cluster() as cluster:
            job = measure.in_turns(ours, cluster.to_entry, pairs=pairs)
    what = "`orch submit` to the end of the first step"
    return [
        measure.Figure(id="P2", what=what, peer=peer, ours=taken[0], theirs=taken[1], reach=reach)
        for peer, taken, reach in (
            ("plain loop as a script", script, 1 / 4),
            ("`ray job submit` to the beginning of its command", job, 1.0),
        )
    ]


def orch_first_step(home: place.Home, sample: Path) -> float:
    """Return the seconds until the step's row is in the database; ends when the job has."""
    flags = specflags.written(recipe(sample))
    with closing(sqlite3.connect(f"file:{home.folder / 'orch.db'}?mode=ro", uri=True)) as database:
        before = _steps(database)
        start = time.monotonic()
        submit = subprocess.Popen(
            [place.ORCH, "submit", *flags, "--force", "-q"],
            env=home.env,
            cwd=home.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        measure.wait_for(lambda: _steps(database) > before, seconds=60)
        taken = time.monotonic() - start
    home.orch("wait", submit.communicate()[0].strip())
    return taken


def plain_first_step(sample: Path) -> float:
    """Return the seconds from the exec of the script to the end of its step."""
    start = time.monotonic()
    script = [sys.executable, "-m", "benchmarks.plain_loop", str(sample), str(BATCH_SIZE)]
    done = subprocess.run(script, cwd=place.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout) - start


def recipe(sample: Path) -> dict[str, object]:
    """Return the fields of a job of one step."""
    return {"data": str(sample), "network": "densenet_tiny", "image_size": 32, "batch_size": BATCH_SIZE, "epochs": 1}


def _steps(database: sqlite3.Connection) -> int:
    (count,) = database.execute("SELECT count(*) FROM step_metrics").fetchone()
    return int(count)


if __name__ == "__main__":
    measure.command("benchmarks.first_step", figures)
