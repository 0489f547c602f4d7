"""Whoever can write to the broker can wake a worker in vain, and nothing else: no code runs and no worker ends."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from orchestrator.core import states
from tests.faults import site as sites
from tests.faults.corpus import doorbells
from tests.faults.site import Site, tiny
from tests.support import pictures, running
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

#: How much a slot may grow by what is pushed: two messages of 10 MB, and one that would unpack to 50 MB.
GROWTH_BYTES = 40 * 2**20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pictures.write(tmp_path_factory.mktemp("pictures"), pictures.members(size=(16, 16))))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with sites.at_work(tmp_path_factory.mktemp("site"), step_seconds=0.05, lease=30) as standing:
        yield standing


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is there when something of what was pushed has run."""
    return tmp_path / "run"


@pytest.fixture
def unharmed(site: Site, canary: Path) -> Iterator[None]:
    """Check that the processes are those of before, that none has grown, and that nothing has run."""
    before = _slots(site)
    sizes = {slot: slot.memory_info().rss for slot in before}
    yield
    assert _slots(site) == before
    assert not canary.exists()
    for slot, size in sizes.items():
        assert slot.memory_info().rss - size < GROWTH_BYTES
    assert site.installed.nodes[-1].poll() is None


def _slots(site: Site) -> set[psutil.Process]:
    return set(running.named(site.installed.settings.home, "worker.app"))


def _push(site: Site, canary: Path, stage: states.Stage) -> None:
    """Push everything onto the stage's queue."""
    with site.broker.client() as client:
        client.lpush(sites.key(stage), *(doorbells.cases(str(canary)) | doorbells.big()).values())


def _as_text(client: "redis.Redis") -> None:
    for stage in states.Stage:
        client.delete(sites.key(stage))
        client.set(sites.key(stage), "not a list")


def _as_kombu_s_books(client: "redis.Redis") -> None:
    for stage in states.Stage:
        queue = sites.key(stage).removeprefix("orch:")
        for key in ("", f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}"):
            client.sadd(f"orch:{key}", "forged", "a\x06\x16b\x06\x16c\x06\x16d")
    client.hset("orch:unacked", "forged", "[1")
    client.zadd("orch:unacked_index", {"forged": 1})


def _as_remote_control(client: "redis.Redis") -> None:
    for channel in ("celery.pidbox", "/0.celery.pidbox", "orch:/0.celery.pidbox", "orch:/0.orch.pidbox"):
        client.publish(channel, doorbells.cases("")["forged shutdown"])
        client.lpush(channel, doorbells.cases("")["forged shutdown"])


@pytest.mark.usefixtures("unharmed")
def test_what_is_pushed_and_forged_ends_no_worker_and_disturbs_no_job(site: Site, canary: Path, data: str) -> None:
    _push(site, canary, states.Stage.DOWNLOAD)
    until(lambda: not site.lying(states.Stage.DOWNLOAD), seconds=90)
    with site.broker.client() as client:
        until(lambda: client.keys() == [], seconds=60)  # nothing is left to be delivered once more
        at_work = site.installed.submit(tiny(data, epochs=10))
        until(lambda: site.installed.store.epochs(at_work.id), seconds=90)
        _push(site, canary, states.Stage.TRAIN)
        _as_kombu_s_books(client)
        _as_remote_control(client)
        site.came_through(at_work.id)
        until(lambda: not site.lying(states.Stage.TRAIN), seconds=90)
        _as_text(client)
        waiting = site.installed.submit(tiny(data))
        site.installed.wait(waiting.id, states.JobState.SUCCEEDED)
        client.flushall()
    site.came_through(waiting.id)
