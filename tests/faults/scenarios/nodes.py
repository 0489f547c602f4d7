"""What befalls nodes: they are killed, fall silent, start and stop, and the next one clears up behind them."""

import contextlib
import time
from datetime import UTC, datetime, timedelta

from orchestrator import config, errors
from orchestrator.core import jobs, states
from orchestrator.queue import embedded
from orchestrator.service import context
from orchestrator.service import node as nodes
from orchestrator.store import base, sql
from tests.faults import homes
from tests.faults.scenarios import work
from worker import children, devices


def only_one(home: homes.Home) -> None:
    """The node is the one of its home."""
    home.flags = ("--only-one",)
    work.life(home)


def one_job_each(home: homes.Home) -> None:
    """Each node takes one job on, and goes."""
    home.flags = ("--max-jobs", "1")
    work.life(home)


def broker(home: homes.Home) -> None:
    """The embedded broker: started by the node, shut down by its owner."""
    at_the_end = home.case is not None and home.case.places == ("broker.shutdown",)
    if not at_the_end:
        home.arm()
    work.succeeds(home, home.submit())
    home.leave()
    if at_the_end:
        home.arm()
    home.call(embedded.stop)
    embedded.stop(home.settings)


def orphaned(home: homes.Home) -> None:
    """The node is killed while it trains; the next one takes back what it held."""
    home.set("checkpoint.folder", "hold")
    job_id = home.submit()
    home.held("checkpoint.folder")
    home.kill()
    home.arm()
    work.succeeds(home, job_id)


def untidy(home: homes.Home) -> None:
    """The node is killed when a checkpoint has its name and no row yet, and others have both."""
    home.set("checkpoint.folder", "pass", "hold")
    job_id = home.submit()
    home.held("checkpoint.folder")
    home.until(lambda: home.rows("SELECT 1 FROM checkpoints WHERE job_id = ?", job_id))
    home.kill()
    home.arm()
    work.succeeds(home, job_id)


def jumped(home: homes.Home) -> None:
    """The host's clock is set back by hours and then forward by more, each for longer than a lease: nobody minds."""
    home.set_clock(0)
    home.set("checkpoint.open", "hold")
    job_id = home.submit()
    home.held("checkpoint.open")
    for hours in (-5, 7):
        home.set_clock(hours)
        _beats(home, 30)
    home.let_go("checkpoint.open")
    work.succeeds(home, job_id)
    assert home.rows("SELECT outcome FROM attempts") == [("done",)] * 3
    with contextlib.closing(sql.open_store(home.settings)) as store:
        times = [event.at for event in store.events(job_id)]
    assert max(times) - min(times) > timedelta(hours=6)  # they saw it


def _beats(home: homes.Home, count: int) -> None:
    known = home.beat()
    home.until(lambda: home.beat() >= known + count)


def lost(home: homes.Home) -> None:
    """A worker of another host falls silent."""
    with contextlib.closing(sql.open_store(home.settings)) as store:
        _register_far_one(store)
    home.arm()
    home.until(lambda: home.rows("SELECT 1 FROM workers WHERE id = 'far-1' AND state = 'lost'"))


def forgotten(home: homes.Home) -> None:
    """A worker that has stopped is forgotten."""
    with contextlib.closing(sql.open_store(home.settings)) as store:
        _register_far_one(store)
        store.beat_worker("far-1", states.WorkerState.STOPPED)
    home.arm()

    def forget(settings: config.Settings) -> None:
        # A command that died behind its commit finds it gone.
        with context.opened(settings) as it, contextlib.suppress(errors.NotFound):
            it.store.forget_worker("far-1")

    home.call(forget)
    assert not home.rows("SELECT 1 FROM workers")


def wished(home: homes.Home) -> None:
    """A worker is asked to take nothing more, and then to go on."""
    ((worker,),) = home.until(lambda: home.rows("SELECT id FROM workers WHERE state = 'active'"))
    home.arm()

    def wish(wanted: states.WorkerWish) -> None:
        def ask(settings: config.Settings) -> None:
            with context.opened(settings) as it:
                it.store.wish_worker(worker, wanted)

        home.call(ask)

    wish(states.WorkerWish.DRAIN)
    job_id = home.submit()
    wish(states.WorkerWish.RUN)
    work.succeeds(home, job_id)


def _register_far_one(store: base.Store) -> None:
    far = jobs.WorkerIdentity(
        id="far-1", host="far", boot_id="another", pid_namespace="another", pid=1, pid_started=1.0
    )
    now = datetime.now(UTC)
    store.register(
        jobs.Worker(
            identity=far,
            state=states.WorkerState.ACTIVE,
            devices=(),
            versions={},
            artifact_root="elsewhere",
            started_at=now,
            beat=0,
            beat_at=now,
        )
    )


def up(home: homes.Home) -> None:
    """`orch up -d` and `orch down --timeout`, with a real node."""
    home.arm()

    def start(settings: config.Settings) -> int:
        with context.opened(settings) as it:
            return nodes.start(settings, it.store).pid

    assert home.call(start)
    home.call(lambda settings: nodes.stop(settings, deadline=60).pid)


def drained(home: homes.Home) -> None:
    """The node is told to go while it has nothing to do; behind one that dies over it, the next one clears up."""
    work.succeeds(home, home.submit())
    home.arm()
    home.leave()


def locked(home: homes.Home) -> None:
    """A GPU's lock: there is no GPU here."""
    home.arm()
    assert home.call(lambda settings: devices._lock(settings.lock_dir / "GPU-1.0") is not None) is True


def child(home: homes.Home) -> None:
    """A process of the node: slots are threads here."""
    home.arm()

    def start(settings: config.Settings) -> bool:
        child = children.Child("child", "this", environment=config.child_environment(settings))
        while not child.pid:
            child.keep()
            time.sleep(0.01)
        return child.wait(time.monotonic() + 60)

    assert home.call(start) is True
