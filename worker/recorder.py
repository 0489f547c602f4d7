"""What the working process says, written to the database: in order, once, and again later where it is away."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import errors, failpoints, log
from orchestrator.core import clock as clocks
from orchestrator.core import jobs
from orchestrator.store import base
from worker import protocol

_log = log.get("recorder")


class Recorder:
    """Turns messages into fenced writes. Those that must wait for the database wait in order."""

    def __init__(self, store: base.Supervisors, claim: jobs.Claim, *, root: Path, clock: clocks.Clock) -> None:
        self.last_step: int | None = None
        self._store = store
        self._claim = claim
        self._root = root
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._progress: deque[Callable[[], None]] = deque(maxlen=1)  # the newest says all, however long it must wait

    def take(self, message: Any) -> None:
        """Queue what the message says."""
        if isinstance(message, protocol.CheckpointWritten):
            self.last_step = message.checkpoint.step
        queue = self._progress if isinstance(message, protocol.Progress) else self._waiting
        queue.append(functools.partial(self._write, message, self._clock.now()))

    def log(self, chunk: jobs.LogChunk) -> None:
        """Queue a piece of the log."""
        self._waiting.append(functools.partial(self._store.record_log, self._claim, chunk))

    def flush(self) -> bool:
        """Write what waits; False where the database is away and something still does.

        A write that fails in any other way (`Stale` among them) is dropped and raises: it would fail again.
        """
        while queue := self._waiting or self._progress:
            write = queue.popleft()
            try:
                write()
            except errors.DatabaseUnavailable as error:
                self._waiting.appendleft(write)
                _log.warning("database away", job=self._claim.id, waiting=len(self._waiting), why=error.why)
                return False
        return True

    def _write(self, message: Any, heard_at: datetime) -> None:
        store, claim = self._store, self._claim
        match message:
            case protocol.Progress():
                store.record_progress(claim, jobs.Progress(**_fields(message), at=heard_at))
            case protocol.Steps():
                store.record_steps(
                    claim, [jobs.StepMetric(step=step, name=name, value=value) for step, name, value in message.values]
                )
            case protocol.CheckpointWritten():
                self._checkpoint(message)
            case protocol.Resumed():
                store.record_resumed(claim, attempt=message.attempt, step=message.step)
            case protocol.DataReady():
                store.record_dataset(claim, jobs.Dataset(**message.dataset.model_dump()))
            case protocol.Evaluated():
                store.record_evaluation(claim, jobs.Evaluation(**_fields(message), attempt=claim.attempt))
            case protocol.Note():
                store.note(claim, kind=message.kind, detail=message.detail)

    def _checkpoint(self, message: protocol.CheckpointWritten) -> None:
        checkpoint = jobs.Checkpoint(**message.checkpoint.model_dump())
        metrics = [jobs.EpochMetric(**metric.model_dump()) for metric in message.metrics]
        let_go = self._store.record_checkpoint(self._claim, checkpoint, metrics)
        self._delete(let_go)

    def _delete(self, checkpoints: Iterable[jobs.Checkpoint]) -> None:
        # Their rows are gone with the commit: a file that stays behind is only space.
        for checkpoint in checkpoints:
            with contextlib.suppress(OSError):
                failpoints.reach("retention.unlink")
                (self._root / checkpoint.path).unlink()


def _fields(message: BaseModel) -> dict[str, Any]:
    return message.model_dump(exclude={"type"})
