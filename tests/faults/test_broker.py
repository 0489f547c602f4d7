"""The broker dies, forgets, fills up, hangs or goes silent: no job is lost, none runs twice, none at work notices.

Whoever can write to it can wake a worker in vain, and nothing else: no code runs and no worker ends.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from orchestrator.core import jobs, states
from orchestrator.queue import broker, dispatch
from orchestrator.store import base
from tests.faults import site as sites
from tests.faults.corpus import doorbells
from tests.faults.site import Site, tiny
from tests.integration.cli.conftest import Orch, OrchIn
from tests.support import oracle, pictures, proxy, running
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

#: What `submit` may take with a broker that does not answer. 5 s are promised, and what is printed holds that where
#: nothing else runs; without a bound it would take for ever.
SUBMIT_SECONDS = 60
#: Between two rounds of the site's reconciler; the default is 5. Two of them later all that waits is rung for again, as
#: is promised, and what is printed holds that where nothing else runs.
SWEEP_SECONDS = 1

#: Trains until it is told to stop.
LONG = 100_000

#: How long a client waits for the broker, and what it says of one that has not answered by then.
IMPATIENT, SILENCE = broker.CLIENT, "Timeout"

#: How much a slot may grow by what is pushed: two messages of 10 MB, and one that would unpack to 50 MB.
GROWTH_BYTES = 40 * 2**20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pictures.write(tmp_path_factory.mktemp("pictures"), pictures.members(size=(16, 16))))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node at work with the default times, but that of its rounds: a job would wait for these again and again."""
    folder = tmp_path_factory.mktemp("site")
    with sites.at_work(folder, sweep=SWEEP_SECONDS, heartbeat=5, lease=30, step_seconds=0.05) as standing:
        yield standing


@pytest.fixture
def file(data: str, tmp_path: Path) -> Path:
    written = tmp_path / "job.yaml"
    written.write_text(tiny(data).model_dump_json(), encoding="utf-8")
    return written


@contextmanager
def _killed_and_forgetful(site: Site) -> Iterator[None]:
    site.broker.kill()
    shutil.rmtree(site.broker.folder / "appendonlydir")
    yield
    site.broker.start()


@contextmanager
def _hung(site: Site) -> Iterator[None]:
    site.broker.process.suspend()
    yield
    site.broker.process.resume()


@contextmanager
def _silent(site: Site) -> Iterator[None]:
    site.between.silence()
    yield
    site.between.heal()


@contextmanager
def _full(site: Site) -> Iterator[None]:
    with site.broker.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def _read_only(site: Site) -> Iterator[None]:
    with site.broker.client() as client:
        client.replicaof("127.0.0.1", 1)
        yield
        client.replicaof("NO", "ONE")


@pytest.fixture
def orch(site: Site, orch_in: OrchIn) -> Orch:
    """The command line beside the site's broker."""
    return orch_in(site.installed)


def _submit(orch: Orch, file: Path, *flags: str, code: int = 0) -> tuple[str, str]:
    """Submit by the command line; return the id and what was said, within the time and without a password."""
    began = time.monotonic()
    ran = orch("submit", "-q", "--force", str(file), *flags, code=code)  # earlier tests have its result
    seconds = _measured("submit", began)
    assert seconds < SUBMIT_SECONDS
    assert sites.CANARY not in ran.out + ran.err
    assert "Traceback" not in ran.err
    return ran.out.strip(), ran.err


def _measured(what: str, began: float) -> float:
    seconds = time.monotonic() - began
    # What the command line says in this process is caught, and this is no part of it.
    (sys.__stdout__ or sys.stdout).write(f"\n{what}: {seconds:.1f} s\n")
    return seconds


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is no broker that is silent."""
    monkeypatch.setattr(broker, "CLIENT", broker.Patience(connect=60, reply=60))


#: What befalls the broker, and why then no doorbell is rung.
FAULTS: tuple[tuple[Callable[[Site], AbstractContextManager[None]], str], ...] = (
    (_killed_and_forgetful, "Connection reset|Connection closed"),
    (_hung, SILENCE),
    (_silent, SILENCE),
    (_full, "command not allowed when used memory"),
    (_read_only, "read only replica"),
)


def test_a_broker_in_trouble_costs_no_job_and_disturbs_none(site: Site, orch: Orch, data: str, file: Path) -> None:
    store = site.installed.store
    at_work = site.installed.submit(tiny(data, epochs=LONG))
    until(lambda: store.epochs(at_work.id), seconds=90)
    submitted = [_submitted_beside(fault, why, site, orch, file) for fault, why in FAULTS]
    epochs = len(store.epochs(at_work.id))
    until(lambda: len(store.epochs(at_work.id)) > epochs, seconds=60)
    store.cancel(at_work.id, actor="tester")
    site.came_through(*submitted)
    assert [attempt.outcome for attempt in store.attempts(at_work.id)] == ["done", "cancelled"]


def _submitted_beside(
    fault: Callable[[Site], AbstractContextManager[None]], why: str, site: Site, orch: Orch, file: Path
) -> str:
    """Submit a job while the fault lasts, and see that a slot hears of it afterwards; return its id."""
    with fault(site), pytest.MonkeyPatch.context() as patch:
        if why == SILENCE:
            patch.setattr(broker, "CLIENT", IMPATIENT)
        submitted, said = _submit(orch, file)
        assert "The broker is away" in said, fault.__name__
        assert re.search(why, said), f"{fault.__name__}: {said}"
    waiting = until(lambda: _waits_for_training(site, submitted), seconds=60)
    assert waiting.attempt == 1, fault.__name__
    until(lambda: site.hears(1), seconds=90)
    return submitted


def _waits_for_training(site: Site, job_id: str) -> jobs.Job | None:
    now = site.installed.store.get(job_id)
    return now if (now.state, now.stage) == (states.JobState.QUEUED, states.Stage.TRAIN) else None


def test_a_broker_that_is_away_is_code_4_where_it_is_wanted(site: Site, orch: Orch, file: Path) -> None:
    site.between.refuse()
    try:
        printed, said = _submit(orch, file, "--require-broker", code=4)
    finally:
        site.between.heal()
    job = site.installed.store.find("@latest")
    assert printed == ""
    assert job.id in said
    site.came_through(job.id)


def test_a_doorbell_that_is_cut_off_or_rung_twenty_times_runs_a_job_once(site: Site, orch: Orch, file: Path) -> None:
    site.between.to_server.rule = proxy.Rule(cut_at=b"LPUSH")
    cut_off, _ = _submit(orch, file)
    assert site.between.to_server.cuts
    dispatch.Doorbell(site.installed.settings).ring(states.Stage.TRAIN, 20)
    site.came_through(cut_off)
    until(lambda: not site.lying(), seconds=60)
    assert [event.kind for event in site.installed.store.events(cut_off)].count("succeeded") == 1


def _places(site: Site, submitted: list[jobs.Job]) -> dict[str, tuple[states.JobState, int]]:
    now = site.installed.store.jobs(jobs.JobFilter(ids=tuple(job.id for job in submitted)))
    return {job.id: (job.state, job.attempt) for job in now}


def _is_in_training(store: base.Store) -> bool:
    running = store.jobs(jobs.JobFilter(states=(states.JobState.RUNNING,)))
    return [job.stage for job in running] == [states.Stage.TRAIN]


def test_after_a_flush_all_that_waits_is_rung_for_again(site: Site, orch: Orch, data: str) -> None:
    store = site.installed.store
    at_work, *waiting = (site.installed.submit(tiny(data, seed=seed, epochs=LONG)) for seed in range(4))
    until(lambda: _is_in_training(store) and store.counts().eligible.get(states.Stage.TRAIN) == 3, seconds=90)
    until(lambda: site.lying() >= 3, seconds=90)
    before = _places(site, [at_work, *waiting])
    with site.broker.client() as client:
        client.flushall()
    began = time.monotonic()
    until(lambda: site.lying() >= 3, seconds=60, every=0.1)
    _measured("rung for again after FLUSHALL", began)
    (working,) = store.jobs(jobs.JobFilter(states=(states.JobState.RUNNING,)))
    epochs = len(store.epochs(working.id))
    until(lambda: len(store.epochs(working.id)) > epochs, seconds=60)
    assert _places(site, [at_work, *waiting]) == before
    orch("cancel", at_work.id, *(job.id for job in waiting))
    oracle.holds(site.installed, promised=before)


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
