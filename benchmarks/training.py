"""P4, P5: a training step against the plain loop, the same networks and batches, each side in a fresh process.

python -m benchmarks.training [--quick] [--write]
"""

import functools
import importlib.util
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass

from benchmarks import measure, place
from worker import children


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of the table: our network and side, the peer's, and the pictures."""

    id: str
    network: str
    peer: str
    called: str
    size: int
    batch: int
    reach: float


CASES = (
    Case(id="P4", network="densenet121", peer="notebook", called="plain loop", size=64, batch=16, reach=1 / 1.5),
    Case(id="P4", network="densenet121", peer="notebook", called="plain loop", size=224, batch=4, reach=1 / 2.2),
    *(
        Case(id="P5", network="densenet121_imagenet", peer=peer, called=called, size=224, batch=16, reach=reach)
        for peer, called, reach in (
            ("torchvision", "torchvision, plain loop", 1 / 1.25),
            ("torchvision-efficient", "the same with memory_efficient", 1 / 1.25),
            ("timm", "timm, its loop", 1.0),
        )
    ),
)

#: What `--quick` takes instead, for a machine that is shared: it says which side is faster and not by how much.
QUICK_SIZE, QUICK_BATCH, QUICK_PAIRS = 32, 8, 2


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure; timm's line is left out where it is not installed (`pip install 'orch[bench]'`)."""
    found = [case for case in CASES if case.peer != "timm" or importlib.util.find_spec("timm")]
    return [_figure(case, quick=quick) for case in found]


def step(side: str, *options: str, ours: bool) -> float:
    """Return the median seconds of a step in a fresh process, ours with the variables of the fork server."""
    env = place.clean_environment(**(children.FORK_SERVER_ENVIRONMENT if ours else {}))
    command = [sys.executable, "-m", "benchmarks.steps", side, *options]
    done = subprocess.run(command, cwd=place.ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    taken: list[float] = json.loads(done.stdout)
    return statistics.median(taken)


def _figure(case: Case, *, quick: bool) -> measure.Figure:
    size, batch = (QUICK_SIZE, QUICK_BATCH) if quick else (case.size, case.batch)
    options = ("--network", case.network, "--size", str(size), "--batch", str(batch))
    ours, theirs = measure.in_turns(
        functools.partial(step, "orch", *options, ours=True),
        functools.partial(step, case.peer, *options, ours=False),
        pairs=QUICK_PAIRS if quick else measure.PAIRS,
    )
    what = f"a step of `{case.network}`, {size} px, batch {batch}"
    return measure.Figure(id=case.id, what=what, peer=case.called, ours=ours, theirs=theirs, reach=case.reach)


if __name__ == "__main__":
    measure.command("benchmarks.training", figures)
