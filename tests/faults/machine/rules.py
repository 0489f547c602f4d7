"""What may happen, in any order: people, two nodes with three slots, the queue and time, against one store."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import stateful
from hypothesis import strategies as st

from orchestrator import errors
from orchestrator.core import dependencies, jobs, states
from orchestrator.service import query, reconcile
from tests.contract import parts
from tests.faults.machine.checks import FINAL, LEADS, LEASE
from tests.faults.machine.workers import EPOCHS, SPECS, STAY, STEPS_PER_EPOCH, Node, Worker
from tests.faults.machine.world import World

State, Stage, Reason = states.JobState, states.Stage, states.Reason

BEAT = 5.0
#: How many slots each node has.
NODES = (1, 2)
WORKERS = st.integers(0, sum(NODES) - 1)
STAGES = st.sampled_from(Stage)
VERBS = st.sampled_from(["", "", "pause", "cancel"])
ANY = st.integers(0, 7)  #: one of the jobs, whichever there are
BAD_ENDS = [parts.DRAINED, *(parts.failed(reason) for reason in (Reason.LOST, Reason.OOM, Reason.DIVERGED))]

T = TypeVar("T")


def _one_of(several: Sequence[T], which: int) -> T:
    return several[which % len(several)]


class Machine(stateful.RuleBasedStateMachine):
    """Histories for Hypothesis to make up."""

    template: ClassVar[Path]  #: a SQLite file with our schema

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.template)
        self.store, self.clock, self.queue = self.world.store, self.world.clock, self.world.queue
        self.account = self.world.account
        self.names = 0
        self.workers = self._new_workers(*NODES)

    # ---- people

    @stateful.initialize(count=st.integers(1, 4), claimed=st.integers(0, 3))
    def begin(self, count: int, claimed: int) -> None:
        """Begin with some jobs, some of them claimed."""
        for _ in range(count):
            self.submit(lost=False)
        for worker in self.workers[:claimed]:
            worker.take(parts.ALL_STAGES)

    @stateful.precondition(lambda self: len(self.account.promised) < 8)
    @stateful.rule(
        lost=st.booleans(),
        behind=st.none() | ANY,
        rule=st.sampled_from(states.After),
        priority=st.sampled_from([0, 0, 1, 2]),
        gpus=st.sampled_from([1, 1, *SPECS]),
    )
    def submit(
        self,
        lost: bool,
        behind: int | None = None,
        rule: states.After = states.After.OK,
        priority: int = 0,
        gpus: int = 1,
    ) -> None:
        """Submit; whoever loses the answer repeats it with the same key, and has submitted once."""
        needed = None if behind is None else self._pick(behind)
        need = dependencies.Dependency(needs=needed, rule=rule) if needed else None
        new = parts.new_job(
            spec=SPECS[gpus],
            priority=priority,
            idempotency_key=f"key {len(self.account.promised)}",
            after=(need,) if need else (),
        )
        if lost:
            self.world.lose(lambda: self.store.submit(new))
        job, is_new = self.store.submit(new)
        assert is_new is not lost
        if need:
            self.account.needs[job.id] = need
        self.account.promised.append(job.id)
        self.account.priorities[job.id] = priority
        self.world.ring(job.stage)

    @stateful.rule(
        which=ANY, verbs=st.lists(st.sampled_from(sorted(LEADS)), min_size=1, max_size=3), lost=st.booleans()
    )
    def steer(self, which: int, verbs: list[str], lost: bool) -> None:
        """Steer a job with one verb or some; whoever loses the answer asks again."""
        job_id = self._pick(which)
        for verb in verbs if job_id else []:
            if lost:
                self.world.lose(lambda: getattr(self.store, verb)(job_id, actor="ada"))  # noqa: B023 - called at once
            self._steer(str(job_id), verb)

    @stateful.precondition(lambda self: len(self.account.there) > 2)
    @stateful.rule(which=ANY, lost=st.booleans())
    def delete(self, which: int, lost: bool) -> None:
        """Delete a job."""
        job_id = self._pick(which)
        if job_id is None:
            return
        allowed = self.store.get(job_id).state is not State.RUNNING
        try:
            if lost:
                self.world.lose(lambda: self.store.delete(job_id, actor="ada"))
            self.store.delete(job_id, actor="ada")
        except errors.IllegalMove:
            assert not allowed
            return
        except errors.NotFound:
            assert lost
        assert allowed
        self.account.deleted.add(job_id)

    # ---- queue and time

    @stateful.rule(trouble=st.sampled_from(["duplicate", "drop", "lose all", "away", "back"]), stage=STAGES)
    def trouble_the_queue(self, trouble: str, stage: states.Stage) -> None:
        """Let the queue suffer."""
        self.queue.suffers(trouble, stage)

    @stateful.rule(steps=st.lists(st.integers(0, 6), min_size=3, max_size=3), rounds=st.integers(1, 3))
    def things_go_their_way(self, steps: list[int], rounds: int) -> None:
        """Let everybody who is not frozen do what there is to do, each at a pace of its own."""
        for _ in range(rounds):
            self.clock.move(seconds=1)
            for worker, pace in zip(self.workers, steps, strict=True):
                if not worker.frozen:
                    worker.go_on(pace)

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
                self.workers[number].beat()
            for number in sorted(looking):
                self.reconcile(number, in_the_nick_of_time=False)
            if turn == rounds // 2:
                self.clock.move(seconds=away)
                self.account.away += max(0, away - LEASE / 2)  # what is shorter, a lease outlives

    # ---- workers

    @stateful.precondition(lambda self: self._that("idle"))
    @stateful.rule(number=WORKERS, which=ANY, by_bell=st.booleans(), damaged=st.booleans())
    def claim(self, number: int, which: int, by_bell: bool, damaged: bool) -> None:
        """Bring a doorbell to a free slot, or let it look by itself; the newest checkpoint may be damaged."""
        lying = sorted(stage for stage, count in self.queue.lying.items() if count)
        stages = (_one_of(lying, which),) if by_bell and lying else parts.ALL_STAGES
        self.queue.lying.subtract(stages if by_bell and lying else ())
        _one_of(self._that("idle"), number).take(stages, passing_over=int(damaged))

    @stateful.precondition(lambda self: self._that("busy"))
    @stateful.rule(number=WORKERS, steps=st.integers(1, 6), save=st.booleans())
    def work(self, number: int, steps: int, save: bool) -> None:
        """Do some of the stage's work, and end it where it is done."""
        _one_of(self._that("busy"), number).work(steps, save=save)

    @stateful.precondition(lambda self: self._that("busy"))
    @stateful.rule(number=WORKERS, verb=st.sampled_from(["pause", "cancel"]), back=st.booleans(), obeys=st.booleans())
    def wish(self, number: int, verb: str, back: bool, obeys: bool) -> None:
        """Wish something of a job while its worker is at it, which obeys, or ends in another way before it hears."""
        worker = _one_of(self._that("busy"), number)
        if worker.claim is None or worker.claim.id in self.account.deleted:
            return
        job_id = worker.claim.id
        self._steer(job_id, verb)
        if obeys:
            worker.beat()
        if back:
            self._steer(job_id, "resume")
        if obeys:
            worker.obey()
        else:
            worker.end(_one_of(BAD_ENDS, number))

    @stateful.precondition(lambda self: self._that("busy"))
    @stateful.rule(number=WORKERS, outcome=st.sampled_from(BAD_ENDS), lost=st.booleans())
    def end_badly(self, number: int, outcome: jobs.Outcome, lost: bool) -> None:
        """Give the job back, or fail it; the answer may be lost, and the outcome is said again later."""
        worker = _one_of(self._that("busy"), number)
        worker.save()
        worker.end(outcome, lost=lost)

    @stateful.precondition(lambda self: self._that("trains") and self._that("idle") and len(self.account.promised) < 8)
    @stateful.rule(number=WORKERS, goes=st.sampled_from(["", "", "cancel", "pause"]), obeys=st.booleans(), then=VERBS)
    def urgent(self, number: int, goes: str, obeys: bool, then: str) -> None:
        """Let an urgent job come while nobody else claims; it may go away, and people may wish something else.

        The worker obeys, or ends in another way before it hears.
        """
        worker, helper = _one_of(self._that("trains"), number), self._that("idle")[0]
        self.submit(lost=False, priority=9)
        job_id = self.account.promised[-1]
        for _ in self.account.promised:
            if self.store.get(job_id).stage is Stage.DOWNLOAD:
                helper.take((Stage.DOWNLOAD,))
                helper.work(1)
        self.clock.move(seconds=STAY)
        with self._draining(worker):
            worker.node.reconciler.sweep()
            if goes:
                self._steer(job_id, goes)
                worker.node.reconciler.sweep()
            if worker.claim is not None and then:
                self._steer(worker.claim.id, then)
            if obeys:
                worker.beat()
                worker.obey()
            else:
                worker.end(_one_of(BAD_ENDS, number))
            worker.take((Stage.TRAIN,))

    @stateful.precondition(lambda self: self._that("unheard"))
    @stateful.rule(number=WORKERS)
    def say_it_again(self, number: int) -> None:
        """Repeat an outcome whose answer was lost."""
        _one_of(self._that("unheard"), number).say_again()

    @stateful.precondition(lambda self: self._that("busy"))
    @stateful.rule(number=WORKERS, pace=st.integers(0, 3), ends=st.booleans(), in_time=st.booleans())
    def oversleep(self, number: int, pace: int, ends: bool, in_time: bool) -> None:
        """Freeze a worker until others have taken its job over, or are just about to, then let it write on."""
        sleeper = _one_of(self._that("busy"), number)
        sleeper.node.frozen = True
        for _ in range(int(LEASE / BEAT) + 2):
            self.clock.move(seconds=BEAT)
            for other in (worker for worker in self.workers if not worker.frozen):
                self.reconcile(self.workers.index(other), in_the_nick_of_time=in_time)
                other.go_on(pace)
        sleeper.node.frozen = False
        if ends:
            sleeper.end(parts.DRAINED)
        else:
            sleeper.work(1, save=True)

    @stateful.rule(number=WORKERS, how=st.sampled_from(["freeze", "thaw", "crash", "crash and restart"]))
    def hurt(self, number: int, how: str) -> None:
        """Stop a node in the middle of everything, let it go on as if no time had passed, or kill it.

        Another comes in the place of a dead one; on the same host it releases at once what that one held.
        """
        node = self.workers[number].node
        node.frozen = how == "freeze"
        if how.startswith("crash"):
            self.account.crashed.add(node.id)
            first, slots = self.workers.index(node.workers[0]), len(node.workers)
            self.workers[first : first + slots] = self._new_workers(slots)
            if how == "crash and restart":
                self.store.release_host(actor=self.workers[first].id, host="host-a", alive=self.account.lives)

    @stateful.rule(number=WORKERS, in_the_nick_of_time=st.booleans())
    def reconcile(self, number: int, in_the_nick_of_time: bool) -> None:
        """Do one round of a worker's reconciler; a holder may beat between its look and its deed."""
        worker = self.workers[number]
        if worker.frozen:
            return
        self._sweep(worker, in_the_nick_of_time=in_the_nick_of_time)
        try:
            doorbell: Any = self.queue
            reconcile.top_up(self.store, doorbell, reconcile.Restraint())
        except errors.BrokerUnavailable:
            return
        eligible = self.store.counts().eligible
        assert all(self.queue.lying[stage] >= min(count, reconcile.MOST_DOORBELLS) for stage, count in eligible.items())

    # ---- what must hold

    @stateful.invariant()
    def all_holds(self) -> None:
        """Look at everything."""
        self.account.look()

    def teardown(self) -> None:
        """Leave what is frozen or away behind, let new nodes come, and wait for every end."""
        try:
            if sys.exc_info()[0] is None:
                self._recover()
        finally:
            self.world.close()

    # ---- how

    def _recover(self) -> None:
        self.queue.away = False
        self.workers = self._new_workers(*NODES)
        for _ in range(600):
            there = self.store.jobs(jobs.JobFilter())
            unfinished = [
                job for job in there if job.state not in FINAL | {State.PAUSED} and not self.account.waits_in_vain(job)
            ]
            if not unfinished:
                break
            self.clock.move(seconds=BEAT)
            for number, worker in enumerate(self.workers):
                self.reconcile(number, in_the_nick_of_time=False)
                worker.go_on(EPOCHS * STEPS_PER_EPOCH)
        assert not unfinished, f"never ended: {[(job.id, job.state, job.stage) for job in unfinished]}"
        self.account.look_at_the_end()

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
            self.world.ring(after.stage)

    @contextmanager
    def _draining(self, but: Worker) -> Iterator[None]:
        """Let no other worker claim."""
        others = [worker.id for worker in self.store.workers() if worker.id != but.id and worker.state in query.LIVING]
        for other in others:
            self.store.wish_worker(other, states.WorkerWish.DRAIN)
        yield
        for other in others:
            with suppress(errors.IllegalMove):  # it was found lost meanwhile
                self.store.wish_worker(other, states.WorkerWish.RUN)

    def _sweep(self, worker: Worker, *, in_the_nick_of_time: bool) -> None:
        take_back = self.store.take_back

        def beaten_to_it(lease: jobs.Lease, **said: str) -> jobs.Job | None:
            held = (lease.job_id, lease.attempt)
            holder = next((w for w in self.workers if w.claim and (w.claim.id, w.claim.attempt) == held), None)
            if holder is None or not in_the_nick_of_time:
                return take_back(lease, **said)
            holder.node.frozen = False
            holder.beat()
            beaten = self.account.signs.get(held) == self.account.up()
            taken = take_back(lease, **said)
            assert not (beaten and taken), "a job was taken from a holder that had just beaten"
            return taken

        self.store.take_back = beaten_to_it  # type: ignore[method-assign]  # for one sweep
        try:
            worker.node.reconciler.sweep()
        finally:
            self.store.take_back = take_back  # type: ignore[method-assign]  # put back

    def _new_workers(self, *slots: int) -> list[Worker]:
        """Let nodes come with so many slots each; return the slots."""
        first, self.names = self.names + 1, self.names + len(slots)
        nodes = (Node(self.world, f"worker-{number}", count) for number, count in enumerate(slots, first))
        return [worker for node in nodes for worker in node.workers]

    def _that(self, are: str) -> list[Worker]:
        return [worker for worker in self.workers if getattr(worker, are)]

    def _pick(self, which: int) -> str | None:
        there = self.account.there
        return _one_of(there, which) if there else None
