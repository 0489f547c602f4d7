"""The walk: every failpoint armed once, with each action, in a home of its own, and the job ends as promised.

`python -m tests.faults.failpoints --all` walks them all; without it as CI does: kill and ENOSPC everywhere, and a
seeded sample of the rest. `store.finish.commit:kill` is one case.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestrator import config, failpoints
from orchestrator.store import sql as _sql  # noqa: F401 - its import enters the store's places

EVERYWHERE = ("kill", "enospc")
SAMPLED = ("eio", "raise", "sleep 0.3")
SAMPLE = 30
LANES = 2


def cases(*, everything: bool, seed: int) -> list[tuple[str, str]]:
    """Return the cases (place, action) of CI, or all there are."""
    rest = [(place, action) for place in failpoints.PLACES for action in SAMPLED]
    chosen = rest if everything else random.Random(seed).sample(rest, SAMPLE)  # noqa: S311 - no secret
    return [(place, action) for place in failpoints.PLACES for action in EVERYWHERE] + [("train.loss", "nan"), *chosen]


def walk(chosen: Iterable[tuple[str, str]], *, lanes: int = LANES) -> Iterator[dict[str, Any]]:
    """Yield the result of each case: place, action, seconds, and error where it did not end as promised."""
    todo = list(chosen)
    with tempfile.TemporaryDirectory(prefix="walk-", dir="/tmp") as folder:  # socket paths must be short
        environment = {**config.child_environment(config.Settings(home=Path(folder))), "OPENBLAS_NUM_THREADS": "1"}
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.failpoints", "--lane", f"{folder}/{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            for number in range(lanes)
        ]
        for number, process in enumerate(running):
            if process.stdin is not None:
                process.stdin.write("\n".join(json.dumps(case) for case in todo[number::lanes]))
                process.stdin.close()
        for process in running:
            yield from (json.loads(line) for line in process.stdout or ())
            if code := process.wait():
                sys.stderr.write(f"a lane ended with {code}\n")


def lane_main(folder: Path) -> None:
    """Walk the cases of standard input."""
    todo = [tuple(json.loads(line)) for line in sys.stdin.read().splitlines()]
    out = os.fdopen(os.dup(1), "w")
    import worker.data.stage  # noqa: PLC0415 - what the fork servers would import
    import worker.training.stage  # noqa: F401, PLC0415
    from tests.faults import lane, scenarios  # noqa: PLC0415

    shared = lane.Lane(folder)
    try:
        for place, action in todo:
            began, error = time.monotonic(), ""
            try:
                home = scenarios.walk(shared, place, action)
                shutil.rmtree(home.path)
            except Exception:  # noqa: BLE001 - it is the case's result
                scenarios.end(shared, place, action)
                error = traceback.format_exc() + lane.told(shared, f"{place}-{action.split()[0]}")
            result = {"place": place, "action": action, "seconds": time.monotonic() - began, "error": error}
            out.write(json.dumps(result) + "\n")
            out.flush()
    finally:
        shared.close()


def main() -> int:
    """Walk, and say what did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.failpoints")
    parser.add_argument("cases", nargs="*", help="place:action")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - no secret
    parser.add_argument("--lanes", type=int, default=LANES)
    parser.add_argument("--lane", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.lane:
        lane_main(arguments.lane)
        return 0
    named = [tuple(case.split(":", 1)) for case in arguments.cases]
    chosen = named or cases(everything=arguments.all, seed=arguments.seed)
    began, bad, count = time.monotonic(), 0, 0
    for result in walk(chosen, lanes=arguments.lanes):
        count += 1
        bad += bool(result["error"])
        sys.stdout.write(f"{result['place']:34} {result['action']:10} {result['seconds']:5.1f} s {result['error']}\n")
        sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{count} of {len(chosen)} cases, {bad} bad, {seconds:.0f} s, seed {arguments.seed}\n")
    return int(bad > 0 or count < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
