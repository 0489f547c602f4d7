"""P9, P13: what the queue costs beside a training: CPU seconds against the engine alone, and memory.

python -m benchmarks.overhead [--quick] [--write]

Both sides train the same epochs with a checkpoint after each. CPU seconds count from the end of the first epoch to the
end of the last, so that neither imports nor start-up are in them; ours are those of the training and of everything that
the node keeps running beside it, the broker too.
"""

import functools
import json
import subprocess
import sys
import tempfile
from typing import Any

import psutil

from benchmarks import measure, place
from orchestrator.cli import specflags
from orchestrator.core import states
from orchestrator.queue import embedded
from orchestrator.service import context, node
from worker import children

#: A training of about half a minute on two cores.
RECIPE = {"data": "digits", "network": "densenet_bc_40_12", "image_size": 16, "batch_size": 64, "epochs": 6, "lr": 1e-3}
QUICK = {"network": "densenet_tiny", "epochs": 3}
QUICK_PAIRS = 1

#: Seconds between two looks at how far a job is. Each keeps the training waiting: its threads have all cores.
_LOOKS = 0.25

#: What the supervisor of a training may keep of the host's memory.
MOST = 150 * 2**20


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Train in turns, in the queue and without it; look at the supervisor's memory once in each training."""
    recipe = RECIPE | (QUICK if quick else {})
    memory: list[float] = []
    with place.node() as home:
        queued, engine = measure.in_turns(
            functools.partial(in_queue, home, recipe, memory),
            functools.partial(alone, home, recipe),
            pairs=QUICK_PAIRS if quick else measure.PAIRS,
        )
    pictures = f"{recipe['epochs']} epochs of `{recipe['network']}`"
    return [
        measure.Figure(
            id="P9",
            what=f"CPU time of {pictures}, queued",
            peer="the same engine without queue and database",
            ours=queued,
            theirs=engine,
            reach=1 / 0.98,
        ),
        measure.Figure(
            id="P13",
            what="memory of a training's supervisor",
            peer="at most",
            ours=tuple(memory),
            theirs=(float(MOST),) * len(memory),
            reach=1,
            shown=measure.mebibytes,
        ),
    ]


def in_queue(home: place.Home, recipe: dict[str, Any], memory: list[float]) -> float:
    """Return the CPU seconds that a queued training takes after its first epoch; note its supervisor's bytes."""
    job = home.orch("submit", *specflags.written(recipe), "--force", "-q").strip()
    with context.opened(home.settings) as here:

        def epochs() -> int:
            return max((row.epoch for row in here.store.epochs(job)), default=0)

        measure.wait_for(lambda: epochs() > 0, seconds=600, every=_LOOKS)
        before = _cpu(home)
        memory.append(supervisor(home))
        measure.wait_for(lambda: epochs() == recipe["epochs"], seconds=1200, every=_LOOKS)
        taken = _cpu(home) - before
        measure.wait_for(lambda: here.store.get(job).state is states.JobState.SUCCEEDED, seconds=600, every=0.1)
    return taken


def alone(home: place.Home, recipe: dict[str, Any]) -> float:
    """Return the CPU seconds that the engine takes after the first epoch, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks.alone", json.dumps(recipe), folder]
        env = {**home.env, **children.FORK_SERVER_ENVIRONMENT}
        done = subprocess.run(command, cwd=place.ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    first, *_, last = json.loads(done.stdout)
    return float(last - first)


def supervisor(home: place.Home) -> float:
    """Return the bytes that the slot of a training has for itself: the largest of the node's."""
    slots = [process for process in _node(home).children() if "worker.app" in process.cmdline()]
    return float(max(process.memory_full_info().uss for process in slots))


def _cpu(home: place.Home) -> float:
    """Return the CPU seconds of the node, all that it has started, and the broker."""
    broker = psutil.Process(int(embedded.state(home.settings)["process_id"]))
    return measure.cpu(_node(home)) + measure.cpu(broker)


def _node(home: place.Home) -> psutil.Process:
    found = node.pid(home.settings)
    if found is None:
        raise RuntimeError("the node has ended")
    return psutil.Process(found)


if __name__ == "__main__":
    measure.command("benchmarks.overhead", figures)
