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

import torch

from benchmarks import measure, place
from worker import children
from worker.training import kernels

#: What `orch submit` may be given for more speed; without any of it the numbers are the notebook's to the last bit.
PLAIN: tuple[str, ...] = ()
FAST = ("--layout", "channels_last")
COMPILED = (*FAST, "--compile")
#: Other numbers than the peers', and only where the CPU has circuits for them.
HALVES = (*COMPILED, "--precision", "bf16")


@dataclass(frozen=True)
class Peer:
    """What a step is measured against: its side, what the table calls it, and the ratio to reach."""

    side: str
    called: str
    reach: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """Lines of the table, measured in the same turns: one network on pictures of one size, against its peers."""

    id: str
    network: str
    size: int
    batch: int
    peers: tuple[Peer, ...]
    ways: tuple[tuple[str, ...], ...]


CASES = (
    Case(
        id="P4",
        network="densenet121",
        size=64,
        batch=16,
        peers=(Peer("notebook", "plain loop", 1 / 1.5),),
        ways=(PLAIN, FAST, COMPILED, HALVES),
    ),
    Case(
        id="P4",
        network="densenet121",
        size=224,
        batch=4,
        peers=(Peer("notebook", "plain loop", 1 / 2.2),),
        ways=(PLAIN, FAST, COMPILED, HALVES),
    ),
    Case(
        id="P5",
        network="densenet121_imagenet",
        size=224,
        batch=16,
        peers=(
            Peer("torchvision", "torchvision, plain loop", 1 / 1.25),
            Peer("torchvision-efficient", "the same with memory_efficient", 1 / 1.25),
            Peer("timm", "timm, its loop", 1.0),
        ),
        ways=(PLAIN, FAST, COMPILED, HALVES),
    ),
)

#: What `--quick` takes instead, for a machine that is shared: it says which side is faster and not by how much.
QUICK_SIZE, QUICK_BATCH, QUICK_PAIRS = 32, 8, 2


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure; timm's lines are left out where it is not installed (`pip install 'orch[bench]'`)."""
    return [figure for case in CASES for figure in _figures(case, quick=quick)]


def step(side: str, *options: str, ours: bool) -> float:
    """Return the median seconds of a step in a fresh process, ours with the variables of the fork server."""
    env = place.clean_environment(**(children.FORK_SERVER_ENVIRONMENT if ours else {}))
    command = [sys.executable, "-m", "benchmarks.steps", side, *options]
    done = subprocess.run(command, cwd=place.ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    taken: list[float] = json.loads(done.stdout)
    return statistics.median(taken)


def _figures(case: Case, *, quick: bool) -> list[measure.Figure]:
    size, batch = (QUICK_SIZE, QUICK_BATCH) if quick else (case.size, case.batch)
    options = ("--network", case.network, "--size", str(size), "--batch", str(batch))
    peers = [peer for peer in case.peers if peer.side != "timm" or importlib.util.find_spec("timm")]
    has_halves = kernels.fast_precision(torch.device("cpu")) == "bf16"
    ways = [way for way in case.ways if way is not HALVES or has_halves]
    taken = measure.in_turns(
        *(functools.partial(step, "orch", *options, *way, ours=True) for way in ways),
        *(functools.partial(step, peer.side, *options, ours=False) for peer in peers),
        pairs=QUICK_PAIRS if quick else measure.PAIRS,
    )
    return [
        measure.Figure(
            id=case.id,
            what=f"a step of `{' '.join((case.network, *way))}`, {size} px, batch {batch}",
            peer=peer.called,
            ours=ours,
            theirs=theirs,
            reach=peer.reach,
        )
        for peer, theirs in zip(peers, taken[len(ways) :], strict=True)
        for way, ours in zip(ways, taken, strict=False)  # behind which come the peers
    ]


if __name__ == "__main__":
    measure.command("benchmarks.training", figures)
