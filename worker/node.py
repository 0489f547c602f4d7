"""The node: what `orch worker` is. It starts the parts, keeps them running, and takes them down in order."""

import argparse
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from orchestrator import config, draining, errors, log, sockets
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, states, streaks
from orchestrator.queue import broker, dispatch, embedded
from orchestrator.service import reconcile
from orchestrator.store import artifacts, base, sql
from worker import devices, health, identity, idle, parts, plans, presence, protocol, recorder, remains, teller
from worker.permits import Permits

_log = log.get("node")

T = TypeVar("T")

_TICK_SECONDS = 0.2
_DATABASE_RETRY_SECONDS = 1.0
#: What the slots need after their trainings have stopped: the last writes, and Celery's own goodbye.
_GOODBYE_SECONDS = 10.0
#: Seconds between two looks for files that no job needs.
_FILES_SECONDS = 60.0


class Node:
    """One worker: its slots, its fork server, its reconciler."""

    def __init__(
        self, settings: config.Settings, *, max_jobs: int | None, exit_when_idle: bool, resources: ExitStack
    ) -> None:
        self._settings = settings
        self._exit_when_idle = exit_when_idle
        self._asked_to_go = False  #: by a signal; a handler that set an event could hang on the lock it interrupted
        self._at_once = False  #: without any more patience for the slots
        self._stop = threading.Event()
        self._ring_soon = threading.Event()  #: something waits that did not wait before
        self._sweep_soon, self._tell_soon = threading.Event(), threading.Event()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: it is to outlive its terminal
            signal.signal(signal.SIGHUP, self._on_signal)
        self._clock = clocks.SystemClock()
        self._beat_at = 0.0
        self._state = states.WorkerState.ACTIVE
        self._wish = states.WorkerWish.RUN
        self._identity = identity.mine(settings.worker_name)
        self._living = settings.run_dir / "living"
        self._key = key = resources.enter_context(identity.held(self._living, self._identity.id))
        self._devices = devices.claim(settings)
        self._offer = devices.offer(self._devices, settings)
        self._root = artifacts.root_id(settings.artifact_dir)
        self._store: base.Store = self._patiently(lambda: sql.open_store(settings))
        resources.callback(self._store.close)
        self._socket = sockets.path(settings, f"fork-{os.getpid()}-{key}.sock")  # `service.node` looks for it
        self._permits = self._make_permits(max_jobs, settings.run_dir / f"{key}.permits")
        resources.callback(presence.forget, settings, key)
        self._fork_server = parts.fork_server(settings, self._socket)
        self._slots = parts.slots(settings, self._plan(), self._devices)

    def run(self) -> int:
        """Work until a signal, or until there is nothing left to do where that is asked for; return the exit code.

        Raises:
            OrchError: this host cannot train at all.

        """
        if self._settings.embedded_broker:
            embedded.ensure(self._settings)
        self._patiently(self._register)
        self._patiently(self._release_the_dead)
        self._fork_server.start()
        for slot in self._slots:
            slot.start()
        helpers = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._reconcile, self._tidy, self._ring, self._tell)
        ]
        for helper in helpers:
            helper.start()
        _log.info("ready", worker=self._identity.id, slots=[slot.name for slot in self._slots])
        self._watch()
        self._drain()
        for helper in helpers:
            helper.join(timeout=_TICK_SECONDS)
        if self._fork_server.last_code == protocol.EXIT_UNUSABLE:
            raise errors.OrchError(
                "This worker cannot train.",
                why="The packages for training cannot be imported: the traceback is in the log above.",
                hint="Install them anew: pip install --force-reinstall 'orch[worker]'",
            )
        return int(self._state is states.WorkerState.UNHEALTHY)

    def _patiently(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, trying again while the database is away: a cluster's parts start in any order."""
        while True:
            try:
                return work()
            except errors.DatabaseUnavailable as error:
                if self._asked_to_go or not self._may_write():
                    raise
                _log.warning("database away", why=error.why)
                time.sleep(_DATABASE_RETRY_SECONDS)

    def _may_write(self) -> bool:
        """Whether permissions allow the database to come back; of a server nobody here knows."""
        ours = (self._settings.home, self._settings.home / "orch.db") if self._settings.embedded_database else ()
        return all(os.access(path, os.W_OK) for path in ours if path.exists())

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Of the other signals more than one comes when a session ends or somebody asks again: that means no hurry.
        self._at_once = self._at_once or (self._asked_to_go and number == signal.SIGINT)
        self._asked_to_go = True

    def _watch(self) -> None:
        while not self._asked_to_go:
            for child in (self._fork_server, *self._slots):
                child.keep()
            if self._fork_server.last_code == protocol.EXIT_UNUSABLE:
                return
            if self._beat_if_due(self._state) and self._done():
                return
            time.sleep(_TICK_SECONDS)

    def _look_at_health(self) -> None:
        """Become unhealthy, for as long as this node lives, where too many jobs in a row have failed here."""
        if self._state is states.WorkerState.UNHEALTHY:
            return
        row = streaks.longest(self._store.ended_attempts(self._identity.id))
        if len(row) < self._settings.unhealthy_after:
            return
        self._state = states.WorkerState.UNHEALTHY
        _log.error("unhealthy: no more jobs are taken", why=streaks.told(row), hint="`orch doctor` says what to do.")

    def _done(self) -> bool:
        if self._exit_when_idle and self._state is states.WorkerState.UNHEALTHY:
            return True
        try:
            return self._permits.used_up() or (self._exit_when_idle and self._idle())
        except errors.DatabaseUnavailable as error:
            _log.warning("database away", why=error.why)
        except OSError as error:
            _log.warning("tally cannot be read", why=str(error))
        return False

    def _drain(self) -> None:
        """Ask every slot to give its job back, and leave none behind."""
        _log.info("draining", worker=self._identity.id)
        self._stop.set()
        for sooner in (self._sweep_soon, self._ring_soon, self._tell_soon):
            sooner.set()  # who waits for a round hears that it is over
        self._beat(states.WorkerState.DRAINING)
        for slot in self._slots:
            slot.ask_to_stop()
        began = time.monotonic()
        while any(slot.running for slot in self._slots) and not self._at_once:
            # Asked each time: another `orch down` may give more.
            if time.monotonic() > began + draining.seconds(self._settings, node=os.getpid()) + _GOODBYE_SECONDS:
                break
            self._beat_if_due(states.WorkerState.DRAINING)
            time.sleep(_TICK_SECONDS)
        for slot in self._slots:
            if not slot.wait(time.monotonic()):
                _log.warning("killed", child=slot.name)
        self._fork_server.ask_to_stop()
        self._fork_server.wait(time.monotonic() + _GOODBYE_SECONDS)
        self._give_back()
        self._beat(states.WorkerState.STOPPED)

    def _give_back(self) -> None:
        """Take back at once what a slot that had to be killed still held."""
        with suppress(errors.Unavailable):
            self._recover()
            for lease in self._store.leases():
                if lease.worker == self._identity.id:
                    self._store.take_back(lease, actor=self._identity.id, detail="the worker was stopped in a hurry")
                    self._clear(lease.job_id, lease.attempt)

    def _reconcile(self) -> None:
        reconciler = reconcile.Reconciler(
            store=self._store,
            clock=self._clock,
            lease_seconds=self._settings.lease,
            actor=self._identity.id,
            stay_seconds=self._settings.stay,
        )

        def sweep() -> None:
            self._recover()
            for job in reconciler.sweep():
                self._clear(job.id, job.attempt)
                self._ring_soon.set()

        self._every_sweep(sweep, sooner=self._sweep_soon)

    def _tidy(self) -> None:
        """Remove files; a thread of its own, since a hundred thousand folders take minutes, and dead leases wait."""
        _round(lambda: remains.clear_all(self._settings.artifact_dir, self._store, over=self._stop.is_set))
        while not self._stop.is_set():
            _round(lambda: remains.sweep(self._store, self._settings))
            self._stop.wait(_FILES_SECONDS)

    def _ring(self) -> None:
        doorbell, restraint = dispatch.Doorbell(self._settings, broker.WORKER), reconcile.Restraint()

        def ring() -> None:
            if self._settings.embedded_broker:
                embedded.ensure(self._settings)
            reconcile.top_up(self._store, doorbell, restraint)

        self._every_sweep(ring, sooner=self._ring_soon)

    def _tell(self) -> None:
        """Tell those who want to hear of jobs; a thread of its own, since a target may hang."""
        telling = teller.Teller(self._store, self._settings, stop=self._stop)
        self._every_sweep(telling.round, sooner=self._tell_soon)

    def _every_sweep(self, work: Callable[[], None], *, sooner: threading.Event) -> None:
        """Do a round at every sweep, the next one at once where `sooner` is set, until the node drains."""
        while not self._stop.is_set():
            sooner.wait(self._settings.sweep)
            sooner.clear()
            if not self._stop.is_set():
                _round(work)

    def _beat(self, state: states.WorkerState) -> None:
        self._beat_at = time.monotonic() + self._settings.heartbeat
        try:
            health.touch(self._settings)
        except OSError as error:  # a full disk under the file must not end what runs
            _log.warning("health file cannot be touched", why=str(error))
        try:
            if state is states.WorkerState.ACTIVE:
                self._look_at_health()
                state = self._state
            if state is states.WorkerState.ACTIVE:
                state = self._taking()
            before, self._wish = self._wish, self._store.beat_worker(self._identity.id, state)
            if self._wish is not before:
                _log.info("told", wish=self._wish, worker=self._identity.id)
                self._beat_at = 0.0  # the state is to follow at once
        except errors.NotFound:
            _log.warning("unknown to the database, which must be another one than before: registers anew")
            self._patiently(self._register)
        except errors.DatabaseUnavailable as error:
            _log.warning("database away", why=error.why)

    def _taking(self) -> states.WorkerState:
        """Return whether a node that is well takes jobs."""
        if self._wish is states.WorkerWish.DRAIN:
            return states.WorkerState.DRAINING
        try:
            return states.WorkerState.SPENT if self._permits.spent() else states.WorkerState.ACTIVE
        except OSError as error:
            _log.warning("tally cannot be read", why=str(error))
            return states.WorkerState.ACTIVE

    def _beat_if_due(self, state: states.WorkerState) -> bool:
        due = time.monotonic() >= self._beat_at
        if due:
            self._beat(state)
        return due

    def _idle(self) -> bool:
        return idle.is_idle(self._store, worker=self._identity.id, root=self._root, offer=self._offer)

    def _register(self) -> None:
        now = self._clock.now()
        self._store.register(
            jobs.Worker(
                identity=self._identity,
                state=states.WorkerState.ACTIVE,
                devices=tuple(device.label for device in self._devices),
                versions=identity.versions(),
                artifact_root=self._root,
                started_at=now,
                beat=0,
                beat_at=now,
                limits=self._settings.limits,
                slots=self._offer.devices,
                labels=self._offer.labels,
            )
        )

    def _release_the_dead(self) -> None:
        """Take back at once what dead workers of this host held, and end what they left running."""
        self._recover()
        alive = functools.partial(identity.alive, living=self._living)
        released = self._store.release_host(actor=self._identity.id, host=self._identity.host, alive=alive)
        for job in released:
            self._clear(job.id, job.attempt)
            _log.info("took back from a dead worker of this host", job=job.id, state=job.state)
        for key in identity.forget_the_dead(self._living):
            presence.forget(self._settings, key)

    def _recover(self) -> None:
        """Write what supervisors said that died while the database was away, as long as their jobs are still theirs."""
        recorder.recover(
            self._store, self._settings.artifact_dir, clock=self._clock, beat_every=self._settings.heartbeat
        )

    def _clear(self, job_id: str, attempt: int) -> None:
        remains.clear_ended(self._settings.artifact_dir, self._store, job_id, up_to=attempt)

    def _make_permits(self, limit: int | None, path: Path) -> Permits:
        if limit is None:
            return Permits(None, store=self._store, worker=self._identity.id)
        return Permits.create(path, limit, store=self._store, worker=self._identity.id)

    def _plan(self) -> plans.Plan:
        """Return what all slots are told alike; as it stands, that of one for downloads."""
        return plans.Plan(
            slot="",
            worker=self._identity,
            stages=(states.Stage.DOWNLOAD,),
            devices=(),
            offer=self._offer,
            locks=self._settings.run_dir / self._key,
            threads=1,
            artifact_root=self._root,
            fork_server=self._socket,
            permits=self._permits.path,
        )


def main() -> int:
    """Run a node; its settings come from the environment."""
    parser = argparse.ArgumentParser(prog="python -m worker")
    parser.add_argument("--max-jobs", type=int)
    parser.add_argument("--exit-when-idle", action="store_true")
    parser.add_argument("--only-one", action="store_true", help="refuse when the home has such a node already")
    arguments = parser.parse_args()
    log.configure()
    try:
        with ExitStack() as resources:
            return _built(arguments, resources).run()
    except errors.OrchError as error:
        _log.error(error.message, why=error.why, hint=error.hint)
        return error.exit_code
    except OSError as error:
        _log.error("This node cannot go on.", why=str(error), hint="`orch doctor` looks at disks and folders.")
        return errors.OrchError.exit_code


def _round(work: Callable[[], None]) -> None:
    try:
        work()
    except errors.Unavailable as error:
        _log.warning(error.message, why=error.why)
    except Exception:  # noqa: BLE001 - the edge: the next round must come, whatever went wrong in this one
        _log.exception("a round failed")


def _built(arguments: argparse.Namespace, resources: ExitStack) -> Node:
    settings = config.load()
    try:
        presence.prepare(settings)
        if arguments.only_one:
            resources.enter_context(presence.only_one(settings))
        return Node(
            settings,
            max_jobs=arguments.max_jobs,
            exit_when_idle=arguments.exit_when_idle,
            resources=resources,
        )
    except OSError as error:  # a folder that may not be written, a disk that is full
        raise errors.OrchError(
            "The node cannot work here.",
            why=f"{error.strerror or error}: {error.filename or settings.home}",
            hint="Check permissions and free space; `orch config paths` names every folder.",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
