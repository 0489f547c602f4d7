"""What the working process says, written to the database: in order, once, and through the journal where it is away."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import errors, log
from orchestrator.core import clock as clocks
from orchestrator.core import history, jobs, layout, provenance
from orchestrator.store import base
from worker import protocol, remains
from worker.heartbeat import Heartbeat
from worker.journal import FILE, Journal, Record
from worker.logtail import LogTail
from worker.shelf import Shelf

_log = log.get("recorder")

#: Seconds until a database that was away is tried again.
_RETRY_SECONDS = 1.0
#: Seconds that one call spends on what waited: the process is to be heard meanwhile.
_REPLAY_SECONDS = 1.0


class Recorder:
    """Turns messages into fenced writes. What the database cannot take now waits in the journal, in order."""

    def __init__(
        self,
        store: base.Store,
        claim: jobs.Claim,
        *,
        root: Path,
        clock: clocks.Clock,
        also: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.last_step: int | None = None
        self.log: LogTail | None = None  #: copied while the database is there: on disk it waits anyway
        self.away = False  #: whether the database was, at the last try
        self.ended: jobs.Job | None = None  #: the job after its outcome was written
        self._store = store
        self._claim = claim
        self._root = root
        self._clock = clock
        self._also = also  #: gets every message; must neither wait nor raise
        self._shelf = Shelf(root, claim.checkpoints, keep=claim.job.spec.keep)
        self._journal_file = layout.attempt(root, claim.id, claim.attempt) / FILE
        self._journal = Journal(self._journal_file)
        self._waiting: deque[Record] = deque()
        self._progress: jobs.Progress | None = None  # the newest says all, however long it must wait
        self._chunk: jobs.LogChunk | None = None
        self._retry_at = 0.0
        self._written_step: int | None = None  #: of the last checkpoint that the database knows
        self._gave_up = False
        self._complained = False  #: of a log that cannot be read

    def take(self, message: Any) -> None:
        """Take in what the process says; `flush` writes it."""
        self._also(message)
        if isinstance(message, protocol.CheckpointWritten):
            self.last_step = message.checkpoint.step
            self._shelf.add(_checkpoint(message))
        if isinstance(message, protocol.Progress):
            self._progress = jobs.Progress(**_fields(message), at=self._clock.now())
        elif not isinstance(message, protocol.Failed | protocol.Ended):  # they become the outcome
            self._add(message)

    def end(self, outcome: jobs.Outcome) -> None:
        """Take in how the attempt ended: the last record."""
        self._add(outcome)

    def flush(self) -> bool:
        """Write what waits; False where some of it still does, which is then in the journal.

        A write that fails in any other way than by a database away (`Stale` among them) is dropped with all behind
        it, and raises: it would fail again.
        """
        if self.away and self._clock.monotonic() < self._retry_at:
            self._spill()
            return False
        try:
            done = self._write_all()
        except errors.DatabaseUnavailable as error:
            _log.warning("database away", job=self._claim.id, why=error.why)
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
            self.away = True
            done = False
        else:
            self.away = False
        if not done:
            self._spill()
        return done

    def adopt(self, journal: Journal) -> None:
        """Go on with the journal that a dead supervisor of this attempt has left behind."""
        self._journal = journal

    def close(self, *, stale: bool) -> None:
        """Let go of the journal: for a successor, or, where the attempt is `stale`, for good."""
        if stale:
            self._journal.discard()
        self._journal.close()

    def _add(self, said: Any) -> None:
        self._waiting.append(self._record(said))

    def _record(self, said: Any) -> Record:
        return Record(at=self._clock.now(), said=said)

    def _write_all(self) -> bool:
        """Write the journal, then what came since, then progress and log; False where the time was not enough."""
        until = self._clock.monotonic() + _REPLAY_SECONDS
        if self._journal.left_out:  # before all that waits: behind its end an attempt writes nothing more
            note = protocol.Note(kind="left_out", detail=f"{self._journal.left_out} messages with step values")
            self._write_once(self._record(note), self._journal.forget_left_out)
        while record := self._journal.oldest():
            self._write_once(record, self._journal.forget_oldest)
            if self._clock.monotonic() > until:
                return False
        self._journal.discard()
        while self._waiting:
            self._write_once(self._waiting[0], self._waiting.popleft)
        if self._progress is not None and self.ended is None:
            self._store.record_progress(self._claim, self._progress)
        self._progress = None
        if self.ended is None:
            self._copy_log()
        return True

    def _write_once(self, record: Record, forget: Callable[[], object]) -> None:
        try:
            self._write(record)
        except errors.DatabaseUnavailable:
            raise
        except Exception as error:
            self._give_up(error)
            raise
        forget()

    def _give_up(self, error: Exception) -> None:
        """Let go of all that was said: what came behind a record that can never be written may rest on it."""
        self._journal.discard()
        self._waiting.clear()
        self.last_step = self._written_step
        if not self._gave_up:  # or that is what can never be written
            why = f"what was said behind a write that failed: {type(error).__name__}"
            self._add(protocol.Note(kind=history.GIVEN_UP, detail=why))
        self._gave_up = True

    def _spill(self) -> None:
        """Move what waits into the journal. On a disk that takes nothing more, only step values are given up."""
        try:
            while self._waiting:
                self._journal.append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            _log.warning("journal not written", job=self._claim.id, why=str(error))
            kept = [record for record in self._waiting if not record.is_steps]
            self._journal.left_out += len(self._waiting) - len(kept)
            self._waiting = deque(kept)
        # Last: until the journal has the newer checkpoints, it may be the older ones that are gone on from.
        if self.away:
            self._shelf.thin_out()

    def _copy_log(self) -> bool:
        """Copy the next piece of the log; False where there is none, or it cannot be read: no job fails of its log."""
        if self._chunk is None and self.log is not None:
            try:
                self._chunk = self.log.read()
            except OSError as error:
                self._complain_of_log(error)
        if self._chunk is None:
            return False
        self._store.record_log(self._claim, self._chunk)
        self._chunk = None
        return True

    def _complain_of_log(self, error: OSError) -> None:
        if not self._complained:
            _log.warning("log cannot be read", job=self._claim.id, why=str(error))
        self._complained = True

    def _write(self, record: Record) -> None:
        store, claim = self._store, self._claim
        match record.said:
            case protocol.Steps() as message:
                store.record_steps(
                    claim, [jobs.StepMetric(step=step, name=name, value=value) for step, name, value in message.values]
                )
            case protocol.CheckpointWritten() as message:
                self._write_checkpoint(message)
            case protocol.Resumed() as message:
                store.record_resumed(claim, attempt=message.attempt, step=message.step)
            case protocol.Environment() as message:
                store.record_environment(claim, provenance.Environment(**_fields(message)))
            case protocol.DataReady() as message:
                store.record_dataset(claim, jobs.Dataset(**message.dataset.model_dump(exclude={"shared"})))
            case protocol.Evaluated() as message:
                store.record_evaluation(claim, jobs.Evaluation(**_fields(message), attempt=claim.attempt))
            case protocol.Note() as message:
                store.note(claim, kind=message.kind, detail=message.detail)
            case jobs.Outcome() as outcome:
                while self._copy_log():  # behind its end an attempt writes nothing more
                    pass
                self._clear_up()
                self.ended = store.finish(claim, outcome)

    def _write_checkpoint(self, message: protocol.CheckpointWritten) -> None:
        checkpoint = _checkpoint(message)
        metrics = [_epoch(metric) for metric in message.metrics]
        if self._shelf.has(checkpoint):
            kept = self._store.record_checkpoint(self._claim, checkpoint, metrics)
            self._shelf.settle(kept)
        elif metrics:
            self._store.record_epoch(self._claim, metrics, step=checkpoint.step)
        self._written_step = checkpoint.step

    def _clear_up(self) -> None:
        """Remove what is not needed, while the job is ours: once it has ended, nobody may come to do so."""
        job = self._claim.job
        needed = remains.files(self._root, self._store.checkpoints(job.id)) | {self._journal_file}
        remains.clear(self._root, job, needed, up_to=self._claim.attempt)


def _checkpoint(message: protocol.CheckpointWritten) -> jobs.Checkpoint:
    return jobs.Checkpoint(**message.checkpoint.model_dump())


def _epoch(metric: protocol.EpochMetrics) -> jobs.EpochMetric:
    usage = jobs.Usage(**metric.usage.model_dump()) if metric.usage is not None else None
    return jobs.EpochMetric(**metric.model_dump(exclude={"usage"}), usage=usage)


def _fields(message: BaseModel) -> dict[str, Any]:
    return message.model_dump(exclude={"type"})


def recover(store: base.Store, root: Path, *, clock: clocks.Clock, beat_every: float) -> None:
    """Replay the journals below `root` whose supervisors have died while their attempts are still the current ones.

    Raises DatabaseUnavailable; what is not written by then waits on.
    """
    for lease in store.leases():
        left = Journal.left_behind(layout.attempt(root, lease.job_id, lease.attempt) / FILE)
        if left is None:
            continue
        try:
            job, known = store.get(lease.job_id), tuple(store.checkpoints(lease.job_id))
        except errors.NotFound:  # ended and deleted, while journals before it were replayed
            left.close()
            continue
        claim = jobs.Claim(job=job, attempt=lease.attempt, checkpoints=known)
        recorder = Recorder(store, claim, root=root, clock=clock)
        recorder.adopt(left)
        _log.info("replays what a dead supervisor left", job=claim.id, attempt=claim.attempt)
        stale = False
        with Heartbeat(store, claim, beat_every=beat_every):
            try:
                while not recorder.flush() and not recorder.away:
                    pass
            except errors.Stale:
                stale = True
            finally:
                recorder.close(stale=stale)
