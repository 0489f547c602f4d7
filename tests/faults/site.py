"""A node at work beside a broker of a test's own, with a proxy in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core import specs, states
from orchestrator.queue import messages
from tests.support import oracle, proxy, running, valkey
from tests.support.waiting import until

#: The broker's password: it must not be seen anywhere.
CANARY = "canary"


@dataclass(frozen=True, kw_only=True)
class Site:
    """What stands there."""

    installed: running.Installation
    broker: valkey.Server
    between: proxy.Proxy

    def hears(self, slots: int = 2) -> bool:
        """Whether so many slots wait for doorbells at the broker."""
        with self.broker.client() as client:
            return sum(str(told["cmd"]) == "brpop" for told in client.client_list()) == slots

    def lying(self, stage: states.Stage = states.Stage.TRAIN) -> int:
        """Return how many doorbells lie unheard."""
        with self.broker.client() as client:
            return int(client.llen(key(stage)))

    def came_through(self, *job_ids: str) -> None:
        """Wait until the jobs have come through every stage at the first try, and the slots hear again."""
        for job_id in job_ids:
            self.installed.wait(job_id, states.JobState.SUCCEEDED)
            assert [attempt.outcome for attempt in self.installed.store.attempts(job_id)] == ["done"] * 3
        oracle.holds(self.installed, promised=job_ids)
        until(self.hears, seconds=90)


@contextmanager
def at_work(folder: Path, *, step_seconds: float, **settings: Any) -> Iterator[Site]:
    """Yield a site whose node hears; its broker keeps what it has acknowledged."""
    lines = (f"requirepass {CANARY}", "appendonly yes", "appendfsync always")
    with (
        valkey.Server(folder / "valkey", *lines, password=CANARY) as broker,
        proxy.Proxy(("127.0.0.1", broker.port)) as between,
        running.installation(
            folder / "home",
            step_seconds=step_seconds,
            broker_url=f"redis://:{CANARY}@127.0.0.1:{between.port}/0",
            **settings,
        ) as installed,
    ):
        site = Site(installed=installed, broker=broker, between=between)
        installed.start_node()
        until(site.hears, seconds=90)
        try:
            yield site
        finally:
            between.heal()


def key(stage: states.Stage) -> str:
    """Return the key of a stage's queue at the broker."""
    return f"orch:{messages.QUEUES[stage]}"


def tiny(data: str, **fields: object) -> specs.JobSpec:
    """Return a job that trains for a moment."""
    given: dict[str, object] = {"network": "densenet_tiny", "image_size": 8, "batch_size": 2, "loader_workers": 0}
    return specs.parse({"data": data, "epochs": 2, **given, **fields})
