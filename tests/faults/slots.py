"""The slots of a case's node: threads of it, where a real node has processes."""

import sys
import threading
import time

from orchestrator import config, errors
from orchestrator.core import states
from worker import app, plans

#: Seconds between two looks of an idle slot for what nobody rings for, such as retries.
_LOOK = 0.2


class Slot:
    """Stands for `children.Child`: a slot as a thread of the node; no fork server, which is the home's.

    It hears what the node's other slot rings; no Celery worker is needed for that.
    """

    last_code: int | None = None
    _rung = threading.Condition()

    def __init__(self, name: str, module: str, *, first_line: str = "", **_: object) -> None:
        self.name = name
        self._module = module
        self._plan = first_line
        self._draining = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        if self._module == "worker.app":
            self._thread.start()

    def keep(self) -> None:
        """Start it again where it could not begin, the database being away: as a process it would have died of that."""
        if self._module == "worker.app" and not self.running:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def ask_to_stop(self) -> None:
        self._draining.set()
        self._ring()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, deadline: float) -> bool:
        if self.running:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self.running

    def _run(self) -> None:
        settings = config.load()
        told = plans.Plan.model_validate_json(self._plan)
        plan = told.model_copy(update={"fork_server": settings.home / "fork.sock"})
        try:
            slot = app.build(plan, settings, self._draining)
        except errors.DatabaseUnavailable as error:
            sys.stderr.write(f"slot {self.name} does not start: {error.why}\n")
            return
        ring_afar = slot._ring

        def ring(stage: states.Stage) -> None:
            ring_afar(stage)
            self._ring()

        slot._ring = ring
        while not self._draining.is_set():
            slot.hear()
            with self._rung:
                self._rung.wait(_LOOK)

    def _ring(self) -> None:
        with self._rung:
            self._rung.notify_all()
