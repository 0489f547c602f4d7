"""How long `orch submit` takes, as a whole process, where its broker or its database does not answer.

python -m tests.faults.answers [--times 3]      on a machine that does nothing else
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from orchestrator import config
from orchestrator.store import migrations
from tests.support import postgres, proxy, running, valkey

#: Within which an answer is promised.
_PROMISED_SECONDS = 5.0

_AWAY = 4


@contextlib.contextmanager
def _refused(between: proxy.Proxy) -> Iterator[None]:
    between.refuse()
    yield
    between.heal()


@contextlib.contextmanager
def _silent(between: proxy.Proxy) -> Iterator[None]:
    between.silence()
    yield
    between.heal()


@contextlib.contextmanager
def _frozen(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    yield
    process.resume()


def _seconds(settings: config.Settings, *, code: int) -> float:
    """Return how long a `submit` took, which must end with this code and without a traceback."""
    words = ("submit", "-q", "--data", "digits")
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        env=config.child_environment(settings),
        cwd=running.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    return seconds


def _measure(name: str, fault: Callable[[], AbstractContextManager[None]], times: int, **given: Any) -> float:
    """Measure one kind of trouble, say what it took, and return the longest."""
    seconds = []
    for _ in range(times):
        with fault():
            seconds.append(_seconds(**given))
    sys.stdout.write(f"{name:28} {' '.join(f'{one:.2f}' for one in sorted(seconds))} s\n")
    sys.stdout.flush()
    return max(seconds)


def _broker(folder: Path, times: int) -> Iterator[float]:
    with valkey.Server(folder / "valkey") as broker, proxy.Proxy(("127.0.0.1", broker.port)) as between:
        settings = config.Settings(home=folder / "a", broker_url=f"redis://127.0.0.1:{between.port}/0")
        given: dict[str, Any] = {"settings": settings, "code": 0}
        yield _measure("all is well, SQLite", contextlib.nullcontext, times, **given)
        yield _measure("the broker refuses", lambda: _refused(between), times, **given)
        yield _measure("the broker is silent", lambda: _silent(between), times, **given)
        yield _measure("the broker hangs", lambda: _frozen(broker.process), times, **given)


def _database(folder: Path, times: int) -> Iterator[float]:
    with postgres.running() as server, proxy.Proxy(server.socket) as between:
        migrations.upgrade(server.url)
        settings = config.Settings(home=folder / "b", database_url=server.url_at(between.port))
        given: dict[str, Any] = {"settings": settings, "code": _AWAY}
        yield _measure("all is well, PostgreSQL", contextlib.nullcontext, times, settings=settings, code=0)
        yield _measure("the database refuses", lambda: _refused(between), times, **given)
        yield _measure("the database is silent", lambda: _silent(between), times, **given)
        yield _measure("the database hangs", server.frozen, times, **given)


def main() -> int:
    """Measure, and say whether the promise is kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.answers")
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory(prefix="answers-") as folder:
        longest = max(*_broker(Path(folder), times), *_database(Path(folder), times))
    sys.stdout.write(f"the longest: {longest:.2f} s of {_PROMISED_SECONDS:g}\n")
    return int(longest > _PROMISED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
