"""The beat of a lease, in a thread of its own: work that blocks must not cost the job."""

import threading
from typing import Self

from orchestrator import errors, log
from orchestrator.core import jobs
from orchestrator.store import workerbase

_log = log.get("heartbeat")


class Heartbeat:
    """Beats while it is open, and knows what is wished of the job.

    `stale` is set once the job belongs to another attempt. A database that is away changes nothing: the work goes on,
    and the fence decides when the database is back.
    """

    def __init__(
        self, store: workerbase.Supervisors, claim: jobs.Claim, *, beat_every: float, look_every: float = 1
    ) -> None:
        self.wish = claim.job.wish
        self.stale = threading.Event()
        self._store = store
        self._claim = claim
        self._looks_per_beat = max(1, round(beat_every / look_every))
        self._look_every = min(look_every, beat_every)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{claim.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        looks = 0
        while not self._closed.wait(self._look_every):
            looks += 1
            ask = self._store.beat if looks % self._looks_per_beat == 0 else self._store.wish
            try:
                self.wish = ask(self._claim)
            except errors.Stale:
                self.stale.set()
                return
            except errors.DatabaseUnavailable as error:
                _log.warning("database away", job=self._claim.id, why=error.why)
            except Exception:  # noqa: BLE001 - the edge: a thread that ended here would cost the job its lease
                _log.exception("a beat failed", job=self._claim.id)
