"""P11: a claim, a job's place and the counts among 100,000 jobs against 100, on SQLite and PostgreSQL, commits and all.

python -m benchmarks.claims [--jobs 100000]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import SecretStr

from benchmarks import crowd
from orchestrator import config
from orchestrator.core import jobs, states
from orchestrator.store import migrations, sql
from tests.support import postgres

FEW = 100
TIMES = 25

_ME = jobs.WorkerIdentity(id="bench", host="bench", boot_id="", pid_namespace="", pid=1, pid_started=0)


def claim(store: sql.SqlStore) -> None:
    """Claim a training."""
    if store.claim(worker=_ME, device="cpu", stages=(states.Stage.TRAIN,), artifact_root="bench") is None:
        raise RuntimeError("nothing was left to claim")


def place(store: sql.SqlStore) -> None:
    """Look up a job's place."""
    (last,) = store.jobs(jobs.JobFilter(states=(states.JobState.QUEUED,), limit=1))
    store.ahead(last.id)


def counts(store: sql.SqlStore) -> None:
    """Count what there is."""
    store.counts()


@contextmanager
def stores(count: int) -> Iterator[dict[str, sql.SqlStore]]:
    """Yield a store with so many jobs on each database."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="orch-bench-")))
        url = stack.enter_context(postgres.running()).url
        migrations.upgrade(url)
        settings = {
            "SQLite": config.Settings(home=home),
            "PostgreSQL": config.Settings(home=home, database_url=SecretStr(url)),
        }
        opened = {name: stack.enter_context(closing(sql.open_store(one))) for name, one in settings.items()}
        for store in opened.values():
            crowd.fill(store, count)
        yield opened


def seconds(act: Callable[[sql.SqlStore], None], store: sql.SqlStore) -> float:
    """Return how long it takes once."""
    start = time.perf_counter()
    act(store)
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns and print the median, the 95th percentile and the ratio of the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims")
    parser.add_argument("--jobs", type=int, default=100_000)
    count = parser.parse_args().jobs
    with stores(FEW) as few, stores(count) as many:
        for name in few:
            for act in (claim, place, counts):
                seconds(act, few[name]), seconds(act, many[name])  # the first time compiles
                pairs = [(seconds(act, many[name]), seconds(act, few[name])) for _ in range(TIMES)]
                ours, theirs = ([1000 * one for one in side] for side in zip(*pairs, strict=True))
                middle, late = statistics.median(ours), statistics.quantiles(ours, n=20)[-1]
                print(
                    f"{name}: {act.__name__} among {count:,} jobs {middle:.1f} ms, p95 {late:.1f} ms;"
                    f" among {FEW} {statistics.median(theirs):.1f} ms; ratio {middle / statistics.median(theirs):.2f}"
                )


if __name__ == "__main__":
    main()
