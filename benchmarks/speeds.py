"""What a fresh installation goes by until it has trained itself: seconds of a step for a few recipes, measured here.

python -m benchmarks.speeds [--steps 6] prints rows for `orchestrator.core.priors`. The fastest step counts: a busy
machine makes steps longer, and none shorter.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks import measure, place
from worker import children


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe, as far as its speed goes."""

    network: str
    size: int
    batch: int
    layout: str
    compiled: bool


CASES = tuple(
    Case(network=network, size=size, batch=batch, layout=layout, compiled=compiled)
    for network, size, batch in (
        ("densenet121", 64, 16),
        ("densenet121", 224, 4),
        ("densenet121_imagenet", 64, 16),
        ("densenet121_imagenet", 224, 16),
        ("densenet_bc_100_12", 32, 64),
        ("densenet_bc_40_12", 16, 32),
    )
    for layout in ("contiguous", "channels_last")
    for compiled in (False, True)
)


def fastest(case: Case, *, steps: int) -> float:
    """Return the seconds of the fastest step, in a fresh process with the variables of the fork server."""
    options = ["--network", case.network, "--size", str(case.size), "--batch", str(case.batch)]
    options += ["--layout", case.layout, "--steps", str(steps), *(["--compile"] if case.compiled else [])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.steps", "orch", *options],
        cwd=place.ROOT,
        env=place.clean_environment(**children.FORK_SERVER_ENVIRONMENT),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    taken: list[float] = json.loads(done.stdout)
    return min(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speeds")
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    print(measure.machine())
    for case in CASES:
        row = (case.network, case.size, case.batch, case.layout, case.compiled)
        print(f"    {row!r}: {fastest(case, steps=given.steps) / case.batch:.4g},", flush=True)


if __name__ == "__main__":
    main()
