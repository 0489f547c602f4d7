"""P3: jobs of one step through one slot, all stages and every fsync, against DVC's queue.

python -m benchmarks.drain [--quick] [--write]
"""

import functools
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import dvc, first_step, measure, place
from orchestrator.core import jobs, specs, states
from orchestrator.service import bell, context, submit

JOBS, QUICK = 100, 10

#: Jobs that DVC's queue is timed over, after a first one.
DVC_JOBS = 4


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure against a DVC experiment that runs the plain loop's one step, and against one that does nothing."""
    with tempfile.TemporaryDirectory() as scratch, place.node() as home:
        sample = place.sample(Path(scratch) / "sample", train=first_step.BATCH_SIZE, val=4)
        loop = ["env", f"PYTHONPATH={place.ROOT}", sys.executable, "-m", "benchmarks.plain_loop"]
        count = QUICK if quick else JOBS
        ours, of_step, of_nothing = measure.in_turns(
            lambda: orch_drain(home, sample, count),
            lambda: dvc_drain(*loop, sample, str(first_step.BATCH_SIZE)),
            lambda: dvc_drain("true"),
            pairs=1 if quick else measure.PAIRS,
        )
    what = f"{count} one-step jobs through one slot, each"
    peers = {"the same step by dvc's queue, each": of_step, "nothing at all by dvc's queue, each": of_nothing}
    return [
        measure.Figure(id="P3", what=what, peer=peer, ours=ours, theirs=theirs, reach=1 / 10)
        for peer, theirs in peers.items()
    ]


def orch_drain(home: place.Home, sample: Path, count: int) -> float:
    """Return the seconds a job, from the first submit to the last success."""
    spec = specs.parse(first_step.recipe(sample))
    with context.opened(home.settings) as here:
        before = _succeeded(here)
        ring = functools.partial(bell.ring, here.settings)
        start = time.monotonic()
        for _ in range(count):
            submit.submit(here.store, jobs.NewJob(spec=spec, user="bench"), ring=ring)
        measure.wait_for(lambda: _succeeded(here) == before + count, seconds=600, every=0.05)
        return (time.monotonic() - start) / count


def dvc_drain(*stage: str | Path) -> float:
    """Return the seconds a job of a fresh project: DVC's queue does not start again in one whose worker was ended."""
    with tempfile.TemporaryDirectory() as scratch, dvc.project(Path(scratch) / "project", *stage) as project:
        return project.drain(DVC_JOBS + 1)


def _succeeded(here: context.Context) -> int:
    counted = here.store.counts().states
    if counted.get(states.JobState.FAILED):
        raise RuntimeError("a job has failed: `orch status @last-failed` in the benchmark's home says why")
    return counted.get(states.JobState.SUCCEEDED, 0)


if __name__ == "__main__":
    measure.command("benchmarks.drain", figures)
