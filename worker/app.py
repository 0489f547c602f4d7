"""The process of one slot: a Celery worker with one thread, whose doorbells set the slot to work.

Started by the node with its plan as one line on standard input; the end of that input is the node's death, and is
taken like SIGTERM: checkpoint, give the job back, go.
"""

import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker import state as celery_state

from orchestrator import config, errors, log
from orchestrator.core import clock as clocks
from orchestrator.core import states
from orchestrator.queue import app as queue_app
from orchestrator.queue import dispatch, messages
from orchestrator.store import sql
from worker import plans, tasks
from worker.launcher import Launcher
from worker.permits import Permits
from worker.pool import UNPOOLED, Pool
from worker.slot import Slot
from worker.supervisor import Place, Supervisor

_log = log.get("slot")

#: Celery's goodbye takes a moment; from a broker that hangs it would wait for an answer for half a minute.
_GOODBYE_SECONDS = 3.0


def main() -> int:
    """Serve until told to go."""
    log.configure()
    try:
        return _serve(plans.Plan.model_validate_json(sys.stdin.readline()), config.load())
    except errors.OrchError as error:
        _log.error(error.message, why=error.why, hint=error.hint)
        return error.exit_code


def _serve(plan: plans.Plan, settings: config.Settings) -> int:
    draining = threading.Event()

    def leave(*_: object) -> None:
        draining.set()
        celery_state.should_stop = 0  # type: ignore[assignment]  # the stubs know its first value alone

    # Celery hears SIGTERM only once it has started, and the slot may have claimed a job by then.
    signal.signal(signal.SIGTERM, leave)
    slot = build(plan, settings, draining)
    app = create(settings, plan, slot)
    signals.worker_shutting_down.connect(lambda **_: draining.set(), weak=False)
    threading.Thread(target=_go_with_the_node, name="lifeline", daemon=True).start()
    threading.Thread(target=slot.look_every, args=(2 * settings.sweep,), name="look", daemon=True).start()
    threading.Thread(target=_go_in_time, args=(slot, draining), name="goodbye", daemon=True).start()
    # It warns of root because of pickle, which is never accepted here, and of a default that is not used here.
    for warning in (SecurityWarning, CPendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=warning)
    worker = app.Worker(
        hostname=f"{plan.slot}@{plan.worker.id}",
        pool="threads",
        concurrency=1,
        queues=[messages.QUEUES[stage] for stage in plan.stages],
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    # Nothing more to hear; and a handler must not set the event while this thread does: its lock is not reentrant.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    draining.set()
    slot.wait_until_free()
    return int(worker.exitcode or 0)


def build(plan: plans.Plan, settings: config.Settings, draining: threading.Event) -> Slot:
    """Return the slot of a plan."""
    store = sql.open_store(settings)
    launcher = Launcher(plan.fork_server)
    devices = Pool(plan.devices, slot=plan.slot, offer=plan.offer, prefix=plan.locks) if plan.devices else UNPOOLED
    place = Place(
        pool=devices,
        threads=plan.threads,
        artifact_dir=settings.artifact_dir,
        data_dir=settings.data_dir,
        node=plan.worker.pid,
    )
    supervisor = Supervisor(
        store=store,
        settings=settings,
        launcher=launcher,
        place=place,
        draining=draining,
        clock=clocks.SystemClock(),
    )
    return Slot(
        store=store,
        supervisor=supervisor,
        worker=plan.worker,
        device=next((one.label for one in plan.devices if one.slot == plan.slot), plans.DOWNLOAD),
        artifact_root=plan.artifact_root,
        stages=plan.stages,
        limits=settings.limits,
        pool=devices,
        permits=Permits(plan.permits, store=store, worker=plan.worker.id),
        ring=_bell(settings),
        ready=plan.fork_server.exists,
        draining=draining,
    )


def create(settings: config.Settings, plan: plans.Plan, slot: Slot) -> Celery:
    """Return the Celery app that hears the doorbells of the plan's stages."""
    app = queue_app.create(settings)
    tasks.register(app, slot.hear, plan.stages)
    return app


def _bell(settings: config.Settings) -> Any:
    doorbell = dispatch.Doorbell(settings)

    def ring(stage: states.Stage) -> None:
        try:
            doorbell.ring(stage)
        except errors.BrokerUnavailable as error:
            # The reconciler rings again, and idle slots look by themselves.
            _log.warning("broker away", why=error.why)

    return ring


def _go_in_time(slot: Slot, draining: threading.Event) -> None:
    """End this process where Celery does not, a moment after the slot has given its job back: nothing is left to do."""
    draining.wait()
    slot.wait_until_free()
    time.sleep(_GOODBYE_SECONDS)
    _log.warning("left without the broker's goodbye")
    os._exit(0)


def _go_with_the_node() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
