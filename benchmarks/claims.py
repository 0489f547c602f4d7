"""P11: the queue among 100,000 jobs and five million rows of steps against 100 jobs, on SQLite and PostgreSQL.

python -m benchmarks.claims [--quick] [--write]

Six of ten jobs wait. A side is what a command asks of the database, in a process that has asked before; claims commit.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy
from pydantic import SecretStr

from benchmarks import crowd, measure
from orchestrator import config
from orchestrator.core import jobs, states
from orchestrator.service import query, why
from orchestrator.store import migrations, sql
from tests.support import postgres

FEW, MANY, QUICK = 100, 100_000, 2000
PAIRS = 25

#: Claims among many jobs that the 95th percentile is of, and the seconds that it may have.
CLAIMS, LATE = 100, 0.02

_ME = jobs.WorkerIdentity(id="bench", host="bench", boot_id="", pid_namespace="", pid=1, pid_started=0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store and the settings that it was opened with."""

    settings: config.Settings
    store: sql.SqlStore


def claim(at: Place) -> None:
    """Claim a training."""
    if at.store.claim(worker=_ME, device="cpu", stages=(states.Stage.TRAIN,), artifact_root="bench") is None:
        raise RuntimeError("nothing was left to claim")


def status(at: Place) -> None:
    """Look at the queue as on a terminal."""
    query.overview(at.settings, at.store, limit=query.GLANCED_AT)


def listed(at: Place) -> None:
    """List the last jobs."""
    at.store.jobs(jobs.JobFilter(limit=20))
    query.living(at.store)


def explained(at: Place) -> None:
    """Say why the last job waits."""
    why.why(at.settings, at.store, "@latest")


ACTS: dict[str, Callable[[Place], None]] = {
    "a claim": claim,
    "`orch status`": status,
    "`orch list -n 20`": listed,
    "`orch why`": explained,
}


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure each act in turns, and how long late claims take."""
    count = QUICK if quick else MANY
    with stores(FEW) as few, stores(count) as many:
        return [figure for name in few for figure in _figures(name, few[name], many[name], count)]


def _figures(name: str, few: Place, many: Place, count: int) -> Iterator[measure.Figure]:
    for what, act in ACTS.items():
        act(few), act(many)  # the first time compiles
        ours, theirs = measure.in_turns(
            functools.partial(seconds, act, many), functools.partial(seconds, act, few), pairs=PAIRS
        )
        yield measure.Figure(
            id="P11",
            what=f"{what} among {count:,} jobs, {name}",
            peer=f"among {FEW}",
            ours=ours,
            theirs=theirs,
            reach=2,
            shown=measure.milliseconds,
        )
    late = statistics.quantiles((seconds(claim, many) for _ in range(CLAIMS)), n=20)[-1]
    yield measure.Figure(
        id="P11",
        what=f"a claim among {count:,} jobs, {name}, 95th percentile",
        peer="at most",
        ours=(late,),
        theirs=(LATE,),
        reach=1,
        shown=measure.milliseconds,
    )


@contextmanager
def stores(count: int) -> Iterator[dict[str, Place]]:
    """Yield a store with so many jobs on each database."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="orch-bench-")))
        url = stack.enter_context(postgres.running()).url
        migrations.upgrade(url)
        settings = {
            "SQLite": config.Settings(home=home),
            "PostgreSQL": config.Settings(home=home, database_url=SecretStr(url)),
        }
        opened = {
            name: Place(settings=one, store=stack.enter_context(closing(sql.open_store(one))))
            for name, one in settings.items()
        }
        for at in opened.values():
            crowd.fill(at.store, count)
            crowd.train(at.store)
        _settle(url)
        yield opened


def _settle(url: str) -> None:
    """Vacuum as the server does by itself within minutes of such growth, so that it does not do so in between."""
    with closing(
        sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool).connect()
    ) as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")


def seconds(act: Callable[[Place], None], at: Place) -> float:
    """Return how long it takes once."""
    start = time.perf_counter()
    act(at)
    return time.perf_counter() - start


if __name__ == "__main__":
    measure.command("benchmarks.claims", figures)
