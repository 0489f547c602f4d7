"""The walk: every failpoint armed with each action, in a home of its own, and the job ends as promised.

`python -m tests.faults.failpoints --all` walks them all; without it as CI does: kill and ENOSPC everywhere, at a few
places of a home at once, and a seeded sample of the rest. `store.finish.commit:kill+enospc` is one case,
`pipe.send:kill@5/postgresql` another.
"""

import argparse
import contextlib
import itertools
import json
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestrator import config, failpoints
from tests.faults import cases, scenarios
from tests.support import postgres

LANES = 2


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a case ended."""

    case: cases.Case
    seconds: float
    core: float  #: seconds of one core
    error: str  #: what did not hold; empty where all did
    left: dict[str, list[str]]  #: by place, actions for which nobody came by


class Walker:
    """A lane's process, which is started again where it dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._process: subprocess.Popen[str] | None = None

    def walk(self, case: cases.Case, *, postgres_url: str | None) -> Iterator[Result]:
        """Walk a case, and in a home of its own what nobody came by for; `postgres_url` is a server to use."""
        result = self._walk(case, postgres_url)
        yield result
        for place, actions in result.left.items():
            if case.visit == 1:
                again = replace(case, places=(place,), actions="+".join(actions))
                yield from self.walk(again, postgres_url=postgres_url)

    def _walk(self, case: cases.Case, postgres_url: str | None) -> Result:
        began = time.monotonic()
        process = self._process = self._process or self._started()
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"postgres": postgres_url, **asdict(case)}) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if line:
            return Result(case=case, **json.loads(line))
        self._process = None
        error = f"the lane ended with {process.wait()}"
        return Result(case=case, seconds=time.monotonic() - began, core=0.0, error=error, left={})

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._process.communicate()

    def _started(self) -> "subprocess.Popen[str]":
        lane = self._folder / str(next(self._numbers))
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.lane", str(lane)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=config.child_environment(config.Settings(home=self._folder), OPENBLAS_NUM_THREADS="1"),
            cwd=Path(__file__).parents[2],
            text=True,
        )


@contextlib.contextmanager
def walker() -> Iterator[Walker]:
    """Yield a walker with a folder of its own."""
    # The paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="w-") as folder, contextlib.closing(Walker(Path(folder))) as opened:
        yield opened


def walk(chosen: Iterable[cases.Case], *, lanes: int, postgres_url: str | None) -> Iterator[Result]:
    """Yield the results as they come."""
    todo: queue.SimpleQueue[cases.Case] = queue.SimpleQueue()
    done: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
    for case in chosen:
        todo.put(case)

    def lane() -> None:
        with walker() as mine, contextlib.suppress(queue.Empty):
            while True:
                for result in mine.walk(todo.get_nowait(), postgres_url=postgres_url):
                    done.put(result)
        done.put(None)

    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for _ in threads:
        while (result := done.get()) is not None:
            yield result


def main() -> int:
    """Walk, and say what did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.failpoints")
    parser.add_argument(
        "cases", nargs="*", type=cases.Case.spelt, help="PLACE[,PLACE]:ACTION[+ACTION][@VISIT][/DATABASE]"
    )
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - no secret
    parser.add_argument("--lanes", type=int, default=LANES)
    given = parser.parse_args()
    chosen = given.cases or (
        cases.everything() if given.all else [*scenarios.together(cases.everywhere()), *cases.sample(given.seed)]
    )
    began, results = time.monotonic(), []
    with contextlib.ExitStack() as resources:
        needed = any(case.database == cases.POSTGRESQL for case in chosen)
        url = resources.enter_context(postgres.running()).url if needed else None
        for result in walk(chosen, lanes=given.lanes, postgres_url=url):
            results.append(result)
            sys.stdout.write(f"{result.case!s:45} {result.seconds:5.1f} s {result.core:5.1f} s  {result.error}\n")
            sys.stdout.flush()
    bad = [str(result.case) for result in results if result.error]
    sys.stdout.write(
        f"{len(results)} cases at {len(failpoints.PLACES)} places, {len(bad)} bad, "
        f"{time.monotonic() - began:.0f} s, {sum(result.core for result in results):.0f} s of one core, "
        f"seed {given.seed} {' '.join(bad)}\n"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
