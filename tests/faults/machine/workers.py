"""Nodes and their slots: what they believe, which may be long out of date, and what they do."""

import dataclasses
from collections.abc import Callable
from typing import Any

from orchestrator import errors
from orchestrator.core import history, jobs, specs, states
from orchestrator.service import reconcile
from tests.contract import parts
from tests.contract.test_fences import EVALUATION
from tests.faults.machine.checks import LEASE
from tests.faults.machine.world import World
from tests.support import pools

Stage, Wish = states.Stage, states.Wish

EPOCHS, STEPS_PER_EPOCH = 3, 2
#: What jobs on so many devices are.
SPECS = {gpus: specs.JobSpec(epochs=EPOCHS, preemptible=True, gpus=gpus) for gpus in (1, 2)}
STAY = 3.0  #: seconds
YIELDED = jobs.Outcome(kind="yielded")


class Node:
    """A node with some slots, each with a device of its own."""

    def __init__(self, world: World, name: str, slots: int) -> None:
        self.id = name
        self.frozen = False
        self.devices = pools.Devices(slots)
        self.workers = [Worker(world, self, number) for number in range(slots)]
        world.account.slots[name] = slots
        self.reconciler = reconcile.Reconciler(
            store=world.store, clock=world.clock, lease_seconds=LEASE, actor=name, stay_seconds=STAY
        )
        now = world.clock.now()
        world.store.register(
            jobs.Worker(
                identity=parts.identity(name),
                state=states.WorkerState.ACTIVE,
                devices=("cpu",) * slots,
                slots=self.devices.offer.devices,
                versions={},
                artifact_root=parts.ROOT,
                started_at=now,
                beat=0,
                beat_at=now,
            )
        )


class Worker:
    """One slot of a node."""

    def __init__(self, world: World, node: Node, number: int) -> None:
        self.node = node
        self.id = node.id
        self.claim: jobs.Claim | None = None
        self.outcome: jobs.Outcome | None = None  #: said, and not known to have been heard
        self._number = number
        self._wish = Wish.RUN
        self._step = self._saved = 0
        self._store, self._queue, self._account, self._world = world.store, world.queue, world.account, world

    @property
    def frozen(self) -> bool:
        """Whether its node stands still."""
        return self.node.frozen

    @property
    def idle(self) -> bool:
        """Whether it may claim."""
        return not self.frozen and self.claim is None

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return not self.frozen and self.claim is not None and self.outcome is None

    @property
    def trains(self) -> bool:
        """Whether it is at work on a training."""
        return self.busy and self.claim is not None and self.claim.job.stage is Stage.TRAIN

    @property
    def unheard(self) -> bool:
        """Whether it does not know if what it said was heard."""
        return not self.frozen and self.outcome is not None

    def go_on(self, steps: int) -> None:
        """Beat, hear the doorbells, do what is wished, else work."""
        self.beat()
        for stage in Stage:
            if self._queue.takes(stage):
                self.take((stage,))
        self.say_again()
        self.obey()
        if steps:
            self.work(steps)

    def take(self, stages: tuple[states.Stage, ...], *, passing_over: int = 0) -> None:
        """Claim what there is, and go on from its newest checkpoint but so many."""
        if not self.idle:
            return
        claim = self._store.claim(
            worker=parts.identity(self.id),
            device="cpu",
            stages=stages,
            artifact_root=parts.ROOT,
            pool=self.node.devices.slot(self._number),
        )
        if claim is None:
            self.node.devices.free(self._number)
            return
        self._check_devices(claim)
        assert (claim.id, claim.attempt) not in self._account.handed_out, "an attempt was handed out twice"
        self._account.handed_out.add((claim.id, claim.attempt))
        self._account.signs[claim.id, claim.attempt] = self._account.up()
        self.claim, self._wish, self._step, self._saved = claim, Wish.RUN, 0, 0
        if claim.job.stage is Stage.TRAIN:
            self._resume(claim, claim.checkpoints[passing_over:] or claim.checkpoints)

    def beat(self) -> None:
        """Say that it lives, and hear what is wished."""
        if self.frozen:
            return
        self._store.beat_worker(self.id, states.WorkerState.ACTIVE)
        claim = self.claim
        if claim is not None and self.outcome is None:
            wish = self._fenced(self._store.beat)
            if self.claim is claim:
                self._wish = wish
                self._account.signs[claim.id, claim.attempt] = self._account.up()

    def obey(self) -> None:
        """Do what is wished."""
        if self._wish is Wish.CANCEL:
            self.end(jobs.Outcome(kind="cancelled"))
        elif self._wish is Wish.PAUSE:
            self.end(parts.PAUSED)
        elif self._wish is Wish.YIELD:
            self.end(YIELDED)

    def work(self, steps: int, *, save: bool = False) -> None:
        """Do some of the stage's work, and end it where it is done."""
        claim = self.claim
        if claim is None:
            return
        if claim.job.stage is not Stage.TRAIN:
            self._fenced(lambda held: self._store.record_progress(held, jobs.Progress(done=steps)))
            if claim.job.stage is Stage.EVALUATE:
                self._evaluate(claim)
            self.end(parts.DONE)
            return
        for _ in range(min(steps, EPOCHS * STEPS_PER_EPOCH - self._step)):
            self._do_step()
        if save:
            self.save()
        if self._step == EPOCHS * STEPS_PER_EPOCH:
            self.end(parts.DONE)

    def save(self) -> None:
        """Write a checkpoint of what was done since the last one, with the epoch's rows where one has ended."""
        if self.claim is None or self.claim.job.stage is not Stage.TRAIN or self._step == self._saved:
            return
        step = self._saved = self._step
        epoch, rest = divmod(step, STEPS_PER_EPOCH)
        rows = [] if rest else parts.epoch_rows(epoch)
        accuracy = None if rest else 0.5
        self._fenced(
            lambda held: self._store.record_checkpoint(
                held, parts.checkpoint(held, step, accuracy=accuracy, epoch=epoch), rows
            )
        )

    def end(self, outcome: jobs.Outcome, *, lost: bool = False) -> None:
        """End the attempt; who gives a job back writes a checkpoint first. The answer may be lost."""
        if outcome.kind in {"drained", "paused", "yielded"}:
            self.save()
        if self.claim is None:
            return
        if self.claim.job.stage is Stage.TRAIN:
            outcome = dataclasses.replace(outcome, last_step=self._step)
        self.outcome = outcome
        try:
            with self._world.losing(int(lost)):
                self._fenced(lambda held: self._store.finish(held, outcome))
        except errors.DatabaseUnavailable:
            return
        self._let_go()

    def say_again(self) -> None:
        """Repeat an outcome whose answer was lost: it has been written, and nothing more happens."""
        if self.claim is None or self.outcome is None:
            return
        try:
            job = self._store.finish(self.claim, self.outcome)
            assert self._store.attempts(job.id)[self.claim.attempt - 1].outcome == self.outcome.kind
        except (errors.NotFound, errors.Stale):
            assert self.claim.id in self._account.deleted, "an end that was said is not known"
        self._let_go()

    def _check_devices(self, claim: jobs.Claim) -> None:
        given = {device.id for device in claim.devices}
        wanted = claim.job.spec.gpus if claim.job.stage is Stage.TRAIN else 1
        assert len(given) == len(claim.devices) == wanted, (
            f"{claim.job.stage} on {wanted} was given {len(given)} devices"
        )
        for other in self.node.workers:
            if other is not self and other.claim is not None:
                assert not given & {device.id for device in other.claim.devices}, "a device is held by two attempts"

    def _resume(self, claim: jobs.Claim, found: tuple[jobs.Checkpoint, ...]) -> None:
        self._step = self._saved = found[0].step if found else 0
        source = found[0].attempt if found else None
        if found != claim.checkpoints:
            self._fenced(lambda held: self._store.note(held, kind=history.DAMAGED, detail="by design"))
        self._fenced(lambda held: self._store.record_resumed(held, attempt=source, step=self._step))

    def _do_step(self) -> None:
        if self.claim is None:  # it was refused at the step before
            return
        self._step += 1
        self._fenced(lambda held: self._store.record_steps(held, parts.losses(self._step, self._step)))
        if self._step % STEPS_PER_EPOCH == 0:
            self.save()

    def _evaluate(self, claim: jobs.Claim) -> None:
        newest = claim.checkpoints[0]
        measured = dataclasses.replace(
            EVALUATION, attempt=claim.attempt, checkpoint_step=newest.step, checkpoint_sha256=newest.sha256
        )
        self._fenced(lambda held: self._store.record_evaluation(held, measured))

    def _let_go(self) -> None:
        self.claim, self.outcome, self._wish = None, None, Wish.RUN
        self.node.devices.free(self._number)

    def _fenced(self, write: Callable[[jobs.Claim], Any]) -> Any:
        """Write with its claim, which must succeed where it holds the job, and only there."""
        claim = self.claim
        if claim is None:
            return None
        leases = {(lease.job_id, lease.attempt): lease.worker for lease in self._store.leases()}
        holds = leases.get((claim.id, claim.attempt)) == self.id
        try:
            result = write(claim)
        except errors.Stale:
            assert not holds, "the holder was refused"
            self._let_go()
            return None
        except errors.DatabaseUnavailable:
            assert holds
            raise
        assert holds, "a stale write was taken"
        return result
