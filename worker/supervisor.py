"""One attempt of one job: start its process, listen to it, write what it says, and say how it ended."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

from orchestrator import config, draining, errors, failpoints, log
from orchestrator.core import clock as clocks
from orchestrator.core import history, jobs, layout, networks, specs, states
from orchestrator.store import base
from worker import oom, protocol, remains, sinks, stage
from worker.heartbeat import Heartbeat
from worker.launcher import Launcher, Process, Unwanted
from worker.logtail import LogTail
from worker.pool import UNPOOLED, Pool, Unpooled
from worker.recorder import Recorder

_log = log.get("supervisor")

_TICK_SECONDS = 1.0
_EXIT_SECONDS = 5.0
#: Two looks at a process are never so far apart, however slow the database is, unless the one who looks was frozen.
_FROZEN_SECONDS = 60.0

#: What a process is asked to stop for: the more urgent wish replaces the other.
_URGENCY = {None: 0, "yielded": 1, "paused": 2, "drained": 3, "cancelled": 4}


#: How an attempt ends that was asked to stop.
Stopped = Literal["yielded", "paused", "drained", "cancelled"]

_STOPS: dict[states.Wish, Stopped] = {states.Wish.YIELD: "yielded", states.Wish.PAUSE: "paused"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a slot works: its devices, its threads, the roots it writes below."""

    pool: Pool | Unpooled = UNPOOLED  #: holds the devices of the present job
    threads: int
    artifact_dir: Path
    data_dir: Path
    node: int = 0  #: pid of the node that it belongs to


@dataclass(kw_only=True)
class _Watch:
    """What the supervisor has asked of the process and heard from it; times on the monotonic clock."""

    began_at: float
    looked_at: float
    alive_at: float
    asked_at: float = 0.0
    asked_for: Stopped | None = None
    killed_for: states.Reason | None = None
    last: protocol.Ended | protocol.Failed | None = None
    memory: oom.Counter


class Supervisor:
    """Runs claimed jobs, one at a time. `draining` is set when its worker is to go."""

    def __init__(
        self,
        *,
        store: base.Store,
        settings: config.Settings,
        launcher: Launcher,
        place: Place,
        draining: threading.Event,
        clock: clocks.Clock,
    ) -> None:
        self._store = store
        self._settings = settings
        self._launcher = launcher
        self._place = place
        self._draining = draining
        self._clock = clock

    def run(self, claim: jobs.Claim) -> jobs.Job | None:
        """Run the claimed stage to its end and return the job as it stands then; None where the job was lost to us."""
        with sinks.opened(self._settings, claim) as also:
            job = self._run(claim, also.take)
        if job is not None and job.state is states.JobState.CANCELLED:
            with contextlib.suppress(errors.Unavailable, OSError):  # the node looks again within a minute
                remains.clear_downloads(self._store, self._settings, of=claim.job.spec)
        return job

    def _run(self, claim: jobs.Claim, also: Callable[[Any], None]) -> jobs.Job | None:
        recorder = Recorder(self._store, claim, root=self._place.artifact_dir, clock=self._clock, also=also)
        stale = False
        with Heartbeat(self._store, claim, beat_every=self._settings.heartbeat) as heartbeat:
            try:
                return self._finish(self._attempt(claim, recorder, heartbeat), recorder)
            except errors.Stale:
                _log.info("fenced", job=claim.id, attempt=claim.attempt)
                stale = True
                return None
            finally:
                recorder.close(stale=stale)
                if stale:
                    remains.clear_ended(self._place.artifact_dir, self._store, claim.id, up_to=claim.attempt)

    def _attempt(self, claim: jobs.Claim, recorder: Recorder, heartbeat: Heartbeat) -> jobs.Outcome:
        """Do the work and return how it ended; what goes wrong on this side of the pipe fails the attempt as well."""
        try:
            return self._work(claim, self._prepare(claim), recorder, heartbeat)
        except errors.Stale:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: a job must never stay running because of a defect of ours
            return _failed(stage.failure(error, folder=self._place.artifact_dir), recorder)

    def _prepare(self, claim: jobs.Claim) -> Path:
        """Make this attempt's directory, and clear away earlier ones that no checkpoint needs."""
        root = self._place.artifact_dir
        remains.clear(root, claim.job, remains.files(root, claim.checkpoints), up_to=claim.attempt - 1)
        attempt_dir = layout.attempt(root, claim.id, claim.attempt)
        failpoints.reach("attempt.mkdir")
        attempt_dir.mkdir(parents=True, exist_ok=True)
        return attempt_dir

    def _work(self, claim: jobs.Claim, attempt_dir: Path, recorder: Recorder, heartbeat: Heartbeat) -> jobs.Outcome:
        logfile = attempt_dir / layout.LOG
        failpoints.reach("log.touch")
        logfile.touch()
        recorder.log = LogTail(logfile, attempt=claim.attempt, max_bytes=self._settings.log_max_bytes)
        began_at = self._clock.monotonic()
        try:
            started = self._start(claim, attempt_dir, heartbeat)
        except Unwanted:
            if heartbeat.stale.is_set():
                raise errors.Stale from None
            return jobs.Outcome(kind=self._wished(heartbeat) or "drained")
        with started as process:
            now = self._clock.monotonic()
            watch = _Watch(began_at=began_at, looked_at=now, alive_at=now, memory=oom.counter(process.pid))
            while not process.ended:
                for readable in connection.wait([process.connection, process.ending], timeout=_TICK_SECONDS):
                    self._hear(readable, process, recorder, watch)
                recorder.flush()
                if heartbeat.stale.is_set():
                    raise errors.Stale
                self._steer(claim, process, heartbeat, watch)
            _drain_pipe(process, recorder, watch)
        return _outcome(process, recorder, watch)

    def _start(self, claim: jobs.Claim, attempt_dir: Path, heartbeat: Heartbeat) -> Process:
        """Start the process. A slot whose node has died waits for a fork server that never comes: until it is to go."""
        return self._launcher.start(
            protocol.ENTRY_POINTS[claim.job.stage],
            self._assignment(claim, attempt_dir),
            log=attempt_dir / layout.LOG,
            locks=self._place.pool.locks,
            unwanted=lambda: heartbeat.stale.is_set() or self._wished(heartbeat) is not None,
        )

    def _hear(self, readable: Any, process: Process, recorder: Recorder, watch: _Watch) -> None:
        if readable is process.ending:
            process.collect()
            return
        watch.alive_at = self._clock.monotonic()
        try:
            # All that has come, for the process must never wait: what is written with it can take seconds.
            for message in process.hearing.messages():
                _take(message, recorder, watch)
        except (EOFError, OSError):
            if not connection.wait([process.ending], timeout=_EXIT_SECONDS):
                process.kill()
            process.collect()

    def _steer(self, claim: jobs.Claim, process: Process, heartbeat: Heartbeat, watch: _Watch) -> None:
        """Ask the process to stop where that is wished, and kill it where asking does not help."""
        now = self._clock.monotonic()
        gap = now - watch.looked_at
        if gap > _FROZEN_SECONDS:  # as the process may have been, in a container that was paused: it is left out
            watch.began_at += gap
            watch.asked_at += gap
            watch.alive_at = min(now, watch.alive_at + gap)
        watch.looked_at = now
        wished = self._wished(heartbeat)
        if _URGENCY[wished] > _URGENCY[watch.asked_for]:
            watch.asked_for, watch.asked_at = wished, now
            process.ask_to_stop()
        if now - watch.asked_at > self._grace(watch.asked_for):
            process.kill()
        if now - watch.alive_at > self._settings.stall:
            watch.killed_for = states.Reason.STALLED
            process.kill()
        hours = claim.job.spec.max_duration
        if hours is not None and claim.ran.total_seconds() + now - watch.began_at > hours * 3600:
            watch.killed_for = states.Reason.TIMEOUT
            process.kill()

    def _grace(self, asked_for: Stopped | None) -> float:
        """Return the seconds between asking and killing; asked each time, since a drain may be given more of them."""
        if asked_for == "cancelled":
            return self._settings.cancel_grace
        if asked_for == "drained":
            return draining.seconds(self._settings, node=self._place.node)
        return math.inf  # a pause or a yield has time: where its step never ends, the stall time ends it

    def _wished(self, heartbeat: Heartbeat) -> Stopped | None:
        """Return for what the process is to stop, if it is."""
        if heartbeat.wish is states.Wish.CANCEL:
            return "cancelled"
        if self._draining.is_set():
            return "drained"
        return _STOPS.get(heartbeat.wish)

    def _finish(self, outcome: jobs.Outcome, recorder: Recorder) -> jobs.Job | None:
        """Write the end, waiting for the database as long as it takes or until the worker is to go.

        Where something before it can never be written, the attempt has failed of that.
        """
        recorder.end(outcome)
        try:
            return self._written(recorder)
        except errors.Stale:
            raise
        except Exception as error:  # noqa: BLE001 - the edge, as above
            recorder.end(_failed(stage.failure(error, folder=self._place.artifact_dir), recorder))
            return self._written(recorder)

    def _written(self, recorder: Recorder) -> jobs.Job | None:
        while not recorder.flush():  # raises Stale by itself: an end whose commit nobody heard of is none
            if recorder.away and self._draining.wait(_TICK_SECONDS):
                return None
        return recorder.ended

    def _assignment(self, claim: jobs.Claim, attempt_dir: Path) -> protocol.Assignment:
        job = claim.job
        spec = specs.parse(job.spec.model_dump(mode="json"))  # stored long ago, it may be none that runs today
        return protocol.Assignment(
            attempt=claim.attempt,
            spec=spec,
            data_hash=job.data_hash,
            checkpoints=tuple(_info(checkpoint) for checkpoint in claim.checkpoints),
            start=_info(claim.start) if claim.start else None,
            artifact_root=str(self._place.artifact_dir),
            attempt_dir=str(attempt_dir),
            data_dir=str(self._place.data_dir),
            devices=self._place.pool.ids,
            threads=self._place.threads,
            memory=networks.leaner(spec.memory, times=claim.out_of_memory),
        )


def _outcome(process: Process, recorder: Recorder, watch: _Watch) -> jobs.Outcome:
    """Say how the attempt ended, by what the process said last, by what was asked of it, and by what ended it."""
    if isinstance(watch.last, protocol.Ended) and watch.last.how == "done":
        return jobs.Outcome(kind="done", last_step=watch.last.last_step)
    if watch.killed_for is not None:
        error = {
            states.Reason.STALLED: "Nothing moved for the stall time, though the process was alive.",
            states.Reason.TIMEOUT: "The job ran longer than its max_duration.",
        }[watch.killed_for]
        return jobs.Outcome(kind="failed", reason=watch.killed_for, error=error, last_step=recorder.last_step)
    if isinstance(watch.last, protocol.Failed) and not (watch.last.reason is states.Reason.LOST and watch.memory.risen):
        return _failed(watch.last, recorder)
    if watch.asked_for is not None or isinstance(watch.last, protocol.Ended):
        # Without its word that the last step is in a checkpoint, steps may be done again.
        unsaid = None if watch.last else history.UNSAID
        return jobs.Outcome(kind=watch.asked_for or "drained", error=unsaid, last_step=recorder.last_step)
    reason, error, hint = _cause_of_death(process, watch)
    return jobs.Outcome(kind="failed", reason=reason, error=error, hint=hint, last_step=recorder.last_step)


def _failed(message: protocol.Failed, recorder: Recorder) -> jobs.Outcome:
    return jobs.Outcome(
        kind="failed", reason=message.reason, error=message.error, hint=message.hint, last_step=recorder.last_step
    )


def _cause_of_death(process: Process, watch: _Watch) -> tuple[states.Reason, str, str | None]:
    # Without a status, the fork server has died as well; with a last word, the process outlived one that it needed.
    killed = process.killed_by == signal.SIGKILL or process.status is None or watch.last is not None
    if killed and watch.memory.risen:
        error = (
            "The kernel killed a process of the job's control group: no memory was left to it."
            if watch.memory.certain
            else "The process was killed while the kernel was killing for memory on this host: most likely for that."
        )
        return states.Reason.OOM, error, stage.HINTS[states.Reason.OOM]
    if process.killed_by is not None:
        name = signal.Signals(process.killed_by).name
        return states.Reason.LOST, f"The process was ended by {name}.", None
    if process.exit_code == protocol.EXIT_FENCED:
        return states.Reason.LOST, "The process lost its supervisor's end of the pipe.", None
    if process.exit_code is not None:
        return (
            states.Reason.INTERNAL,
            f"The process ended with code {process.exit_code} and said nothing.",
            "Its log says more: `orch logs`.",
        )
    return states.Reason.LOST, "The process vanished together with its fork server.", None


def _drain_pipe(process: Process, recorder: Recorder, watch: _Watch) -> None:
    """Take what the process said before it ended."""
    try:
        for message in process.hearing.messages():
            _take(message, recorder, watch)
    except (EOFError, OSError):
        return


def _take(message: Any, recorder: Recorder, watch: _Watch) -> None:
    if isinstance(message, protocol.Ended | protocol.Failed):
        watch.last = message
    recorder.take(message)


def _info(checkpoint: jobs.Checkpoint) -> protocol.CheckpointInfo:
    return protocol.CheckpointInfo(
        attempt=checkpoint.attempt,
        epoch=checkpoint.epoch,
        step=checkpoint.step,
        path=checkpoint.path,
        bytes=checkpoint.bytes,
        sha256=checkpoint.sha256,
        best=checkpoint.best,
        accuracy=checkpoint.accuracy,
    )
