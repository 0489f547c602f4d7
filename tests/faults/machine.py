"""A state machine over the real store on a real SQLite file: people, three workers, a lossy queue, and time.

Only the work of the processes is made up, and the clock. What orch says is compared with a model of its own; at the
end all that is frozen is left behind, new workers come, and every job that is not paused has to end, once.

python -m tests.faults.machine [--examples 1400] [--steps 50] [--seed N]
"""

import argparse
import os
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from orchestrator import config, errors
from orchestrator.core import jobs, specs, states
from orchestrator.service import reconcile
from orchestrator.store import base, models, sql
from tests.conftest import HandClock
from tests.contract import parts

State, Stage, Wish, Reason = states.JobState, states.Stage, states.Wish, states.Reason

#: What the kernel keeps in memory has no disk to wait for; it is a file to SQLite all the same.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

LEASE = 30.0
BEAT = 5.0
EPOCHS, STEPS_PER_EPOCH = 3, 2
SPEC = specs.JobSpec(epochs=EPOCHS)
FINAL = {State.SUCCEEDED, State.FAILED, State.CANCELLED}
WORKERS = st.integers(0, 2)
STAGES = st.sampled_from(Stage)
ANY = st.integers(0, 7)  #: one of the jobs, whichever there are

#: Our own copy of what may follow what: a change of the real table is to be noticed.
LEGAL = {
    None: {State.QUEUED},
    State.QUEUED: {State.RUNNING, State.PAUSED, State.CANCELLED},
    State.RUNNING: {State.QUEUED, State.PAUSED, State.SUCCEEDED, State.FAILED, State.CANCELLED},
    State.PAUSED: {State.QUEUED, State.CANCELLED},
    State.SUCCEEDED: set(),
    State.FAILED: {State.QUEUED},
    State.CANCELLED: {State.QUEUED},
}


T = TypeVar("T")


def _one_of(several: Sequence[T], which: int) -> T:
    return several[which % len(several)]


BAD_ENDS = [parts.DRAINED, *(parts.failed(reason) for reason in (Reason.LOST, Reason.OOM, Reason.DIVERGED))]

#: What each verb leads to, by state and wish; what is not listed may not be. A verb that leads nowhere changes nothing.
LEADS: dict[str, dict[tuple[states.JobState, states.Wish], tuple[states.JobState, states.Wish]]] = {
    "cancel": {
        (State.QUEUED, Wish.RUN): (State.CANCELLED, Wish.RUN),
        (State.PAUSED, Wish.RUN): (State.CANCELLED, Wish.RUN),
        (State.CANCELLED, Wish.RUN): (State.CANCELLED, Wish.RUN),
        **{(State.RUNNING, wish): (State.RUNNING, Wish.CANCEL) for wish in Wish},
    },
    "pause": {
        (State.QUEUED, Wish.RUN): (State.PAUSED, Wish.RUN),
        (State.PAUSED, Wish.RUN): (State.PAUSED, Wish.RUN),
        (State.RUNNING, Wish.RUN): (State.RUNNING, Wish.PAUSE),
        (State.RUNNING, Wish.PAUSE): (State.RUNNING, Wish.PAUSE),
    },
    "resume": {
        (State.PAUSED, Wish.RUN): (State.QUEUED, Wish.RUN),
        (State.RUNNING, Wish.PAUSE): (State.RUNNING, Wish.RUN),
    },
    "retry": {
        (State.FAILED, Wish.RUN): (State.QUEUED, Wish.RUN),
        (State.CANCELLED, Wish.RUN): (State.QUEUED, Wish.RUN),
    },
}


class Queue:
    """Doorbells that may be lost or doubled, on a broker that may be away."""

    def __init__(self) -> None:
        self.lying: Counter[states.Stage] = Counter()
        self.away = False

    def ring(self, stage: states.Stage, times: int = 1) -> None:
        """Take doorbells in."""
        if self.away:
            raise errors.BrokerUnavailable
        self.lying[stage] += times

    def waiting(self, stages: Any) -> dict[states.Stage, int]:
        """Count them."""
        if self.away:
            raise errors.BrokerUnavailable
        return {stage: self.lying[stage] for stage in stages}


class Worker:
    """A node with one slot: what it believes, which may be long out of date."""

    def __init__(self, store: base.Store, clock: HandClock, name: str) -> None:
        self.id = name
        self.frozen = False
        self.claim: jobs.Claim | None = None
        self.wish = Wish.RUN
        self.step = 0
        self.outcome: jobs.Outcome | None = None  #: said, and not known to have been heard
        self.reconciler = reconcile.Reconciler(store=store, clock=clock, lease_seconds=LEASE, actor=name)
        now = clock.now()
        store.register(
            jobs.Worker(
                identity=parts.identity(name),
                state=states.WorkerState.ACTIVE,
                devices=("cpu",),
                versions={},
                artifact_root=parts.ROOT,
                started_at=now,
                beat=0,
                beat_at=now,
            )
        )

    def let_go(self) -> None:
        """Forget the job."""
        self.claim, self.outcome, self.wish = None, None, Wish.RUN


class Picture(NamedTuple):
    """Rows of one moment."""

    jobs: Sequence[Any]
    events: Sequence[Any]  #: since the last look
    open_attempts: Sequence[Any]
    deleted: Sequence[Any]


class Machine(stateful.RuleBasedStateMachine):
    """People, workers, queue and time, against one store."""

    template: ClassVar[Path]  #: a SQLite file with our schema

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        home = Path(self.resources.enter_context(tempfile.TemporaryDirectory(prefix="orch-machine-", dir=MEMORY)))
        shutil.copy(self.template, home)
        self.clock = HandClock()
        self.store = sql.open_store(config.Settings(home=home), clock=self.clock)
        self.resources.callback(self.store.close)
        self.losing = 0  #: answers to commits that are lost from now on
        self._make_commits_lossy()
        self.queue = Queue()
        self.promised: list[str] = []
        self.deleted: set[str] = set()
        self.names = 0
        self.crashed: set[str] = set()
        self.away = 0.0  #: seconds without the database
        self.signs: dict[tuple[str, int], float] = {}  #: when an attempt's lease was last seen to move, by its holder
        self.handed_out: set[tuple[str, int]] = set()
        self.seen = 0  #: the last event that was looked at
        self.state: dict[str, states.JobState] = {}
        self.attempt: Counter[str] = Counter()
        self.run: Counter[str] = Counter()
        self.ends: Counter[tuple[str, int]] = Counter()
        self.wished: dict[str, states.Wish] = {}  #: what people were told of a running job
        self.workers: list[Worker] = [self._new_worker() for _ in range(3)]

    # ---- people

    @stateful.initialize(count=st.integers(1, 4), claimed=st.integers(0, 3))
    def begin(self, count: int, claimed: int) -> None:
        """Begin with some jobs, some of them claimed."""
        for _ in range(count):
            self.submit(lost=False)
        for worker in self.workers[:claimed]:
            self._claim(worker, parts.ALL_STAGES)

    @stateful.precondition(lambda self: len(self.promised) < 8)
    @stateful.rule(lost=st.booleans())
    def submit(self, lost: bool) -> None:
        """Submit; whoever loses the answer repeats it with the same key, and has submitted once."""
        key = f"key {len(self.promised)}"
        if lost:
            self._lose(lambda: self.store.submit(parts.new_job(spec=SPEC, idempotency_key=key)))
        job, is_new = self.store.submit(parts.new_job(spec=SPEC, idempotency_key=key))
        assert is_new is not lost
        self.promised.append(job.id)
        self._ring(job.stage)

    @stateful.rule(
        which=ANY, verbs=st.lists(st.sampled_from(sorted(LEADS)), min_size=1, max_size=3), lost=st.booleans()
    )
    def steer(self, which: int, verbs: list[str], lost: bool) -> None:
        """Steer a job with one verb or some; whoever loses the answer asks again."""
        job_id = self._pick(which)
        for verb in verbs if job_id else []:
            if lost:
                self._lose(lambda: getattr(self.store, verb)(job_id, actor="ada"))  # noqa: B023 - called at once
            self._steer(str(job_id), verb)

    def _steer(self, job_id: str, verb: str) -> None:
        before = self.store.get(job_id)
        leads = LEADS[verb].get((before.state, before.wish))
        try:
            after = getattr(self.store, verb)(job_id, actor="ada")
        except errors.IllegalMove:
            assert leads is None, f"{verb} of a {before.state} job was refused"
            return
        assert leads == (after.state, after.wish), f"{verb} of a {before.state} job led to {after.state}"
        assert after.run == before.run + (verb == "retry")
        if after.state is State.QUEUED:
            self._ring(after.stage)

    @stateful.precondition(lambda self: len(self.promised) - len(self.deleted) > 2)
    @stateful.rule(which=ANY, lost=st.booleans())
    def delete(self, which: int, lost: bool) -> None:
        """Delete a job."""
        job_id = self._pick(which)
        if job_id is None:
            return
        allowed = self.store.get(job_id).state is not State.RUNNING
        try:
            if lost:
                self._lose(lambda: self.store.delete(job_id, actor="ada"))
            self.store.delete(job_id, actor="ada")
        except errors.IllegalMove:
            assert not allowed
        except errors.NotFound:
            assert lost
            assert allowed
            self.deleted.add(job_id)
        else:
            assert allowed
            self.deleted.add(job_id)

    # ---- queue and time

    @stateful.rule(trouble=st.sampled_from(["duplicate", "drop", "lose all", "away", "back"]), stage=STAGES)
    def trouble_the_queue(self, trouble: str, stage: states.Stage) -> None:
        """Double, make up or lose a doorbell, or all of them; let the broker go and come back."""
        match trouble:
            case "duplicate":
                self.queue.lying[stage] += 1
            case "drop":
                self.queue.lying[stage] = max(0, self.queue.lying[stage] - 1)
            case "lose all":
                self.queue.lying.clear()
            case _:
                self.queue.away = trouble == "away"

    @stateful.rule(steps=st.lists(st.integers(0, 6), min_size=3, max_size=3), rounds=st.integers(1, 3))
    def things_go_their_way(self, steps: list[int], rounds: int) -> None:
        """Let everybody who is not frozen do what there is to do, each at a pace of its own."""
        for _ in range(rounds):
            self.clock.move(seconds=1)
            for worker, pace in zip(self.workers, steps, strict=True):
                if not worker.frozen:
                    self._go_on(worker, pace)

    @stateful.rule(seconds=st.sampled_from([1, 4, 10, 31, 700]))
    def time_passes(self, seconds: int) -> None:
        """Let nobody do anything for a while."""
        self.clock.move(seconds=seconds)

    @stateful.rule(
        beating=st.sets(WORKERS),
        looking=st.sets(WORKERS, min_size=1),
        rounds=st.integers(1, 8),
        away=st.sampled_from([0, 20, 100]),
    )
    def quiet_time(self, beating: set[int], looking: set[int], rounds: int, away: int) -> None:
        """Let some workers beat and some reconcile, every five seconds; in the middle the database may be away.

        Then no beat can be told, and none may be missed.
        """
        for turn in range(rounds):
            self.clock.move(seconds=BEAT)
            for number in sorted(beating):
                self._beat(self.workers[number])
            for number in sorted(looking):
                self.reconcile(number, in_the_nick_of_time=False)
            if turn == rounds // 2:
                self.clock.move(seconds=away)
                self.away += max(0, away - LEASE / 2)  # what is shorter, a lease outlives

    # ---- workers

    @stateful.precondition(lambda self: self._idle())
    @stateful.rule(number=WORKERS, which=ANY, by_bell=st.booleans(), damaged=st.booleans())
    def claim(self, number: int, which: int, by_bell: bool, damaged: bool) -> None:
        """Bring a doorbell to a free slot, or let it look by itself; the newest checkpoint may be damaged."""
        lying = sorted(stage for stage, count in self.queue.lying.items() if count)
        stages = (_one_of(lying, which),) if by_bell and lying else parts.ALL_STAGES
        self.queue.lying.subtract(stages if by_bell and lying else ())
        self._claim(_one_of(self._idle(), number), stages, passing_over=int(damaged))

    @stateful.precondition(lambda self: self._busy())
    @stateful.rule(number=WORKERS, steps=st.integers(1, 6), save=st.booleans())
    def work(self, number: int, steps: int, save: bool) -> None:
        """Do some of the stage's work, and end it where it is done."""
        self._work(_one_of(self._busy(), number), steps, save=save)

    @stateful.precondition(lambda self: self._busy())
    @stateful.rule(number=WORKERS, verb=st.sampled_from(["pause", "cancel"]), back=st.booleans(), obeys=st.booleans())
    def wish(self, number: int, verb: str, back: bool, obeys: bool) -> None:
        """Wish something of a job while its worker is at it, which obeys, or ends in another way before it hears."""
        worker = _one_of(self._busy(), number)
        if worker.claim is None or worker.claim.id in self.deleted:
            return
        job_id = worker.claim.id
        self._steer(job_id, verb)
        if obeys:
            self._beat(worker)
        if back:
            self._steer(job_id, "resume")
        if obeys:
            self._obey(worker)
        else:
            self._end(worker, BAD_ENDS[number % len(BAD_ENDS)])

    @stateful.precondition(lambda self: self._busy())
    @stateful.rule(number=WORKERS, outcome=st.sampled_from(BAD_ENDS), lost=st.booleans())
    def end_badly(self, number: int, outcome: jobs.Outcome, lost: bool) -> None:
        """Give the job back, or fail it; the answer may be lost, and the outcome is said again later."""
        worker = _one_of(self._busy(), number)
        self._save(worker)
        self.losing = int(lost)
        self._end(worker, outcome)
        self.losing = 0

    @stateful.precondition(lambda self: self._unheard())
    @stateful.rule(number=WORKERS)
    def say_it_again(self, number: int) -> None:
        """Repeat an outcome whose answer was lost."""
        worker = _one_of(self._unheard(), number)
        if worker.outcome is not None:
            self._end(worker, worker.outcome)

    @stateful.precondition(lambda self: self._busy())
    @stateful.rule(number=WORKERS, pace=st.integers(0, 3), ends=st.booleans(), in_time=st.booleans())
    def oversleep(self, number: int, pace: int, ends: bool, in_time: bool) -> None:
        """Freeze a worker until others have taken its job over, or are just about to, then let it write on."""
        sleeper = _one_of(self._busy(), number)
        sleeper.frozen = True
        for _ in range(int(LEASE / BEAT) + 2):
            self.clock.move(seconds=BEAT)
            for other in (worker for worker in self.workers if not worker.frozen):
                self.reconcile(self.workers.index(other), in_the_nick_of_time=in_time)
                self._go_on(other, pace)
        sleeper.frozen = False
        if ends:
            self._end(sleeper, parts.DRAINED)
        else:
            self._work(sleeper, 1, save=True)

    @stateful.rule(number=WORKERS, how=st.sampled_from(["freeze", "thaw", "crash", "crash and restart"]))
    def hurt(self, number: int, how: str) -> None:
        """Stop a worker in the middle of everything, let it go on as if no time had passed, or kill it.

        Another comes in the place of a dead one; on the same host it releases at once what that one held.
        """
        self.workers[number].frozen = how == "freeze"
        if how.startswith("crash"):
            self.crashed.add(self.workers[number].id)
            self.workers[number] = worker = self._new_worker()
            if how == "crash and restart":
                self.store.release_host(actor=worker.id, host="host-a", alive=self._lives)

    @stateful.rule(number=WORKERS, in_the_nick_of_time=st.booleans())
    def reconcile(self, number: int, in_the_nick_of_time: bool) -> None:
        """Do one round of a worker's reconciler; a holder may beat between its look and its deed."""
        worker = self.workers[number]
        if worker.frozen:
            return
        take_back = self.store.take_back

        def beaten_to_it(lease: jobs.Lease, **said: str) -> jobs.Job | None:
            holder = next((w for w in self.workers if w.claim and (w.claim.id == lease.job_id)), None)
            if in_the_nick_of_time and holder and holder.claim and holder.claim.attempt == lease.attempt:
                holder.frozen = False
                self._beat(holder)
                beaten = self.signs.get((lease.job_id, lease.attempt)) == self._up()
                taken = take_back(lease, **said)
                assert not (beaten and taken), "a job was taken from a holder that had just beaten"
                return taken
            return take_back(lease, **said)

        self.store.take_back = beaten_to_it  # type: ignore[method-assign]
        try:
            worker.reconciler.sweep()
        finally:
            self.store.take_back = take_back  # type: ignore[method-assign]
        try:
            doorbell: Any = self.queue
            reconcile.top_up(self.store, doorbell)
        except errors.BrokerUnavailable:
            return
        eligible = self.store.counts().eligible
        assert all(self.queue.lying[stage] >= min(count, reconcile.MOST_DOORBELLS) for stage, count in eligible.items())

    # ---- what must hold

    @stateful.invariant()
    def all_holds(self) -> None:
        """Nothing that was promised is lost, nothing changes without its event, nothing is held twice."""
        now = self._picture()
        there = {row.id: row for row in now.jobs}
        assert set(self.promised) == set(there) | self.deleted, "a promised job is lost, or one was made up"
        assert not set(there) & self.deleted
        assert {row.id for row in now.deleted} == self.deleted, "nobody knows that a job was deleted"
        for row in now.events:
            self._check_event(row)
        for row in now.jobs:
            assert row.state is self.state[row.id], "a state changed without an event"
            assert row.attempt == self.attempt[row.id]
        running = sorted((row.id, row.attempt) for row in now.jobs if row.state is State.RUNNING)
        assert sorted((row.job_id, row.attempt) for row in now.open_attempts) == running

    def teardown(self) -> None:
        """Leave what is frozen or away behind, let three new workers come, and wait for every end."""
        try:
            if sys.exc_info()[0] is None:
                self._recover()
        finally:
            self.resources.close()

    # ---- how

    def _recover(self) -> None:
        self.queue.away = False
        self.workers = [self._new_worker() for _ in range(3)]
        for _ in range(600):
            unfinished = [job for job in self.store.jobs(jobs.JobFilter()) if job.state not in FINAL | {State.PAUSED}]
            if not unfinished:
                break
            self.clock.move(seconds=BEAT)
            for number, worker in enumerate(self.workers):
                self.reconcile(number, in_the_nick_of_time=False)
                self._go_on(worker, EPOCHS * STEPS_PER_EPOCH)
        self.all_holds()
        assert not unfinished, f"never ended: {[(job.id, job.state, job.stage) for job in unfinished]}"
        for job in self.store.jobs(jobs.JobFilter()):
            assert self.ends[job.id, job.run] == (job.state in FINAL)
            assert all(self.ends[job.id, run] == 1 for run in range(1, job.run))
            if job.state is State.SUCCEEDED:
                rows = [(row.epoch, row.split) for row in self.store.epochs(job.id)]
                assert rows == [(epoch, split) for epoch in range(1, EPOCHS + 1) for split in ("train", "val")]

    def _picture(self) -> "Picture":
        """Return what the database says, all of it from one moment, events since the last look."""
        event, attempt = models.events.c, models.attempts.c
        queries = (
            models.jobs.select(),
            models.events.select().where(event.seq > self.seen).order_by(event.seq),
            models.attempts.select().where(attempt.ended_at.is_(None)),
            models.deleted_jobs.select(),
        )
        picture = Picture(*self.store.database.read(lambda c: [c.execute(query).all() for query in queries]))
        self.seen = max([self.seen, *(row.seq for row in picture.events)])
        return picture

    def _lives(self, worker: jobs.WorkerIdentity) -> bool:
        return worker.id not in self.crashed

    def _up(self) -> float:
        """Return the seconds in which the database was there."""
        return self.clock.monotonic() - self.away

    def _idle(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.frozen and worker.claim is None]

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.frozen and worker.claim and worker.outcome is None]

    def _unheard(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.frozen and worker.outcome]

    def _go_on(self, worker: Worker, steps: int) -> None:
        """Beat, hear the doorbells, do what is wished, else work."""
        self._beat(worker)
        for stage in Stage:
            if self.queue.lying[stage]:
                self.queue.lying[stage] -= 1
                self._claim(worker, (stage,))
        if worker.outcome is not None:
            self._end(worker, worker.outcome)
        self._obey(worker)
        if steps:
            self._work(worker, steps, save=False)

    def _beat(self, worker: Worker) -> None:
        if worker.frozen:
            return
        self.store.beat_worker(worker.id, states.WorkerState.ACTIVE)
        claim = worker.claim
        if claim is not None and worker.outcome is None:
            wish = self._fenced(worker, self.store.beat)
            if worker.claim is claim:
                worker.wish = wish
                self.signs[claim.id, claim.attempt] = self._up()

    def _obey(self, worker: Worker) -> None:
        if worker.wish is Wish.CANCEL:
            self._end(worker, jobs.Outcome(kind="cancelled"))
        elif worker.wish is Wish.PAUSE:
            self._save(worker)
            self._end(worker, parts.PAUSED)

    def _work(self, worker: Worker, steps: int, *, save: bool) -> None:
        if worker.claim is None:
            return
        if worker.claim.job.stage is not Stage.TRAIN:
            progress = jobs.Progress(done=steps, total=steps)
            self._fenced(worker, lambda held: self.store.record_progress(held, progress))
            self._end(worker, parts.DONE)
            return
        for _ in range(min(steps, EPOCHS * STEPS_PER_EPOCH - worker.step)):
            self._step(worker)
        if save:
            self._save(worker)
        if worker.step == EPOCHS * STEPS_PER_EPOCH:
            self._end(worker, parts.DONE)

    def _new_worker(self) -> Worker:
        self.names += 1
        return Worker(self.store, self.clock, f"worker-{self.names}")

    def _pick(self, which: int) -> str | None:
        there = [job_id for job_id in self.promised if job_id not in self.deleted]
        return _one_of(there, which) if there else None

    def _ring(self, stage: states.Stage) -> None:
        if not self.queue.away:
            self.queue.ring(stage)

    def _make_commits_lossy(self) -> None:
        write = self.store.database.write

        def cut(work: Any, **named: Any) -> Any:
            result = write(work, **named)
            if self.losing:
                self.losing -= 1
                raise errors.DatabaseUnavailable(why="the connection was cut during the commit")
            return result

        self.store.database.write = cut  # type: ignore[method-assign]

    def _lose(self, act: Callable[[], object]) -> None:
        """Do something and lose the answer."""
        self.losing = 1
        try:
            act()
        except (errors.DatabaseUnavailable, errors.IllegalMove):
            pass
        finally:
            self.losing = 0

    def _claim(self, worker: Worker, stages: tuple[states.Stage, ...], *, passing_over: int = 0) -> None:
        if worker.frozen or worker.claim is not None:
            return
        claim = self.store.claim(
            worker=parts.identity(worker.id), device="cpu", stages=stages, artifact_root=parts.ROOT
        )
        if claim is None:
            return
        assert (claim.id, claim.attempt) not in self.handed_out, "an attempt was handed out twice"
        self.handed_out.add((claim.id, claim.attempt))
        self.signs[claim.id, claim.attempt] = self._up()
        worker.claim, worker.wish, worker.step = claim, Wish.RUN, 0
        if claim.job.stage is Stage.TRAIN:
            found = claim.checkpoints[passing_over:] or claim.checkpoints
            worker.step = found[0].step if found else 0
            source = found[0].attempt if found else None
            self._fenced(worker, lambda held: self.store.record_resumed(held, attempt=source, step=worker.step))

    def _step(self, worker: Worker) -> None:
        if worker.claim is None:  # it was refused at the step before
            return
        worker.step += 1
        self._fenced(worker, lambda held: self.store.record_steps(held, parts.losses(worker.step, worker.step)))
        if worker.step % STEPS_PER_EPOCH == 0:
            self._save(worker)

    def _save(self, worker: Worker) -> None:
        if worker.claim is None or worker.claim.job.stage is not Stage.TRAIN or not worker.step:
            return
        epoch, rest = divmod(worker.step, STEPS_PER_EPOCH)
        rows = [] if rest else parts.epoch_rows(epoch)
        accuracy = None if rest else 0.5
        self._fenced(
            worker,
            lambda held: self.store.record_checkpoint(
                held, parts.checkpoint(held, worker.step, accuracy=accuracy, epoch=epoch), rows
            ),
        )

    def _end(self, worker: Worker, outcome: jobs.Outcome) -> None:
        """Say how the attempt ended; where the answer is lost, it is said again."""
        if worker.claim is None:
            return
        again, worker.outcome = worker.outcome is not None, outcome
        try:
            if again:
                job = self.store.finish(worker.claim, outcome)
                assert self.store.attempts(job.id)[worker.claim.attempt - 1].outcome == outcome.kind
            else:
                self._fenced(worker, lambda held: self.store.finish(held, outcome))
        except errors.NotFound:
            assert worker.claim.id in self.deleted
        except errors.Stale:
            assert worker.claim.id in self.deleted, "an end that was said is not known"
        except errors.DatabaseUnavailable:
            assert not again
            return
        worker.let_go()

    def _fenced(self, worker: Worker, write: Callable[[jobs.Claim], Any]) -> Any:
        """Write with a worker's claim, which must succeed where it holds the job, and only there."""
        claim = worker.claim
        if claim is None:
            return None
        leases = {(lease.job_id, lease.attempt): lease.worker for lease in self.store.leases()}
        holds = leases.get((claim.id, claim.attempt)) == worker.id
        try:
            result = write(claim)
        except errors.Stale:
            assert not holds, "the holder was refused"
            worker.let_go()
            return None
        except errors.DatabaseUnavailable:
            assert holds
            raise
        assert holds, "a stale write was taken"
        return result

    def _check_event(self, row: Any) -> None:
        job_id = row.job_id
        assert row.attempt >= self.attempt[job_id], "an attempt went back"
        assert row.run >= self.run[job_id], "a run went back"
        self.attempt[job_id], self.run[job_id] = row.attempt, row.run
        wishes = {"cancel_requested": Wish.CANCEL, "pause_requested": Wish.PAUSE, "pause_taken_back": Wish.RUN}
        if row.new_state is None:
            self.wished[job_id] = wishes.get(row.kind, self.wished.get(job_id, Wish.RUN))
            return
        before = self.state.get(job_id)
        assert row.old_state is before, f"{row.kind} came from {row.old_state}, and the job was {before}"
        assert row.new_state in LEGAL[before], f"{before} to {row.new_state}"
        if before is State.RUNNING:
            self._check_end_of_attempt(row)
        elif before is not None and row.kind != "claimed":
            assert row.actor == "ada", f"{row.actor} moved a {before} job"
        self.state[job_id] = row.new_state
        if row.new_state in FINAL:
            self.ends[job_id, row.run] += 1
            assert self.ends[job_id, row.run] == 1, "a run ended twice"

    def _check_end_of_attempt(self, row: Any) -> None:
        wish = self.wished.pop(row.job_id, Wish.RUN)
        if wish is Wish.CANCEL:
            assert row.new_state in {State.CANCELLED, State.SUCCEEDED}, f"cancelled in vain: {row.new_state}"
        if wish is Wish.PAUSE:
            assert row.new_state is not State.QUEUED, "paused in vain"
        detail = str(row.detail)
        sign = self.signs.get((row.job_id, row.attempt))
        if "no beat of its lease" in detail and sign is not None:
            assert self._up() - sign >= LEASE, "a living lease was taken back"
        if "process on host-a has ended" in detail:
            holder = self.store.attempts(row.job_id)[row.attempt - 1].worker if row.job_id not in self.deleted else None
            assert holder is None or holder in self.crashed, "a living worker was released"


def run(template: Path, *, examples: int, steps: int, seed: int | None = None) -> None:
    """Run so many histories of so many steps; without a seed, always the same ones."""
    chosen = type("SeededMachine", (Machine,), {"template": template})
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=seed is None,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=True,
    )
    if seed is not None:
        chosen = hypothesis.seed(seed)(chosen)
    stateful.run_state_machine_as_test(chosen, settings=settings)


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.machine")
    parser.add_argument("--examples", type=int, default=1400)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as home:
        sql.open_store(config.Settings(home=Path(home))).close()
        run(Path(home) / "orch.db", examples=given.examples, steps=given.steps, seed=given.seed)
    sys.stdout.write(f"{given.examples} histories of up to {given.steps} steps: all holds\n")


if __name__ == "__main__":
    main()
