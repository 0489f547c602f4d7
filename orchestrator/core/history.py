"""What must hold of a job's rows, as pure rules: its events, its attempts, and the winning line that these make.

The rules work out the line by themselves, from where each attempt resumed: they would not notice the store's mistakes
if they asked the store.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from orchestrator.core import gangs, jobs, retention, states, stopping
from orchestrator.core.findings import Finding, Kind

#: Kind of the event that says why a checkpoint was passed over.
DAMAGED = "checkpoint_damaged"

#: Kind of the event that says that a person let a job begin anew, without its checkpoints.
FORGOTTEN = "checkpoints_forgotten"

#: Kind of the event that gave a job that had ended more epochs: the one way out of a success.
EXTENDED = "extended"

#: Kind of the event that gave a training's device to an urgent job; its detail names that one.
YIELDED = "yielded"

#: What is said of an attempt that stopped without having said that its last step is in a checkpoint.
UNSAID = "Its process ended before it had said that all was saved."

#: Kind of the event that says that step values were given up while the database was away.
LEFT_OUT = "left_out"

#: Kind of the event that says that a job came from a backup: its attempts are counted on from that of the event.
RESTORED = "restored"

#: Kind of the event that says that something could not be written, and all that was said behind it was given up.
GIVEN_UP = "given_up"


@dataclass(frozen=True, kw_only=True)
class StepSpan:
    """The steps of which one attempt has stored a metric."""

    attempt: int
    name: str
    first: int
    last: int
    count: int


@dataclass(frozen=True, kw_only=True)
class History:
    """Every row of one job, of all attempts, from one moment; each kind in the order in which it came about."""

    job: jobs.Job
    events: tuple[jobs.Event, ...]
    attempts: tuple[jobs.Attempt, ...]
    epochs: tuple[jobs.EpochMetric, ...]
    steps: tuple[StepSpan, ...]
    checkpoints: tuple[jobs.Checkpoint, ...]
    evaluations: tuple[jobs.Evaluation, ...]
    held: frozenset[int] = frozenset()  #: steps of checkpoints that other jobs start from

    @cached_property
    def trainings(self) -> tuple[jobs.Attempt, ...]:
        """The attempts that began to train, in order."""
        return tuple(attempt for attempt in self.attempts if attempt.first_step is not None)

    @cached_property
    def line_ends(self) -> dict[int, int | None]:
        """Up to which step the rows of each attempt count: the lowest at which a later one resumed.

        One less where a later one resumed at a step at which it had closed an epoch, from an earlier one's checkpoint.
        """
        closed = {(row.attempt, row.step) for row in self.epochs}

        def end(attempt: int, later: jobs.Attempt) -> int:
            step, source = later.first_step or 0, later.resumed_from
            return step - (source is not None and source < attempt and (attempt, step) in closed)

        return {
            each.attempt: min(
                (end(each.attempt, later) for later in self.trainings if later.attempt > each.attempt), default=None
            )
            for each in self.attempts
        }

    @cached_property
    def kept(self) -> tuple[jobs.Checkpoint, ...]:
        """The checkpoints on the line, newest first."""
        on_line = [point for point in self.checkpoints if self.counts(point.attempt, point.step)]
        return tuple(sorted(on_line, key=lambda point: (point.step, point.attempt), reverse=True))

    @cached_property
    def line(self) -> tuple[jobs.EpochMetric, ...]:
        """The epochs on the line, train before val."""
        on_line = [row for row in self.epochs if self.counts(row.attempt, row.step)]
        return tuple(sorted(on_line, key=lambda row: (row.epoch, row.split)))

    def counts(self, attempt: int | None, step: int | None) -> bool:
        """Whether a row of that attempt and step is on the line."""
        end = self.line_ends.get(attempt or 0)
        return end is None or (step or 0) <= end

    def passed_over(self, attempt: int) -> bool:
        """Whether the attempt found a checkpoint damaged, and said so."""
        return any(event.kind == DAMAGED and event.attempt == attempt for event in self.events)

    def forgotten(self, before: jobs.Attempt, after: jobs.Attempt) -> bool:
        """Whether a person let the job begin anew between two attempts."""
        return any(event.kind == FORGOTTEN and before.attempt <= event.attempt < after.attempt for event in self.events)

    def gave_up(self, attempt: jobs.Attempt) -> bool:
        """Whether the attempt said that checkpoints of its own may not have been written."""
        return any(event.kind == GIVEN_UP and event.attempt == attempt.attempt for event in self.events)

    def finding(self, kind: Kind, sentence: str) -> Finding:
        """Return a finding about this job."""
        return Finding(kind=kind, job=self.job.id, sentence=sentence)


def check(history: History) -> Iterator[Finding]:
    """Yield what does not hold."""
    for rule in RULES:
        yield from rule(history)


def _chain(history: History) -> Iterator[Finding]:
    """Yield where the way of states is broken, illegal, or leads elsewhere than to the job's state."""
    state: states.JobState | None = None
    for event in history.events:
        if event.new_state is None:
            continue
        if event.old_state is not state:
            yield history.finding(Kind.CHAIN, f"event {event.seq} ({event.kind}) leaves {event.old_state}, not {state}")
        begins = event.old_state is None and event.new_state is states.JobState.QUEUED
        if not begins and (event.old_state is None or not states.may_move(event.old_state, event.new_state)):
            move = f"from {event.old_state} to {event.new_state}"
            yield history.finding(Kind.CHAIN, f"event {event.seq} ({event.kind}) is no legal move: {move}")
        if event.old_state is states.JobState.SUCCEEDED and event.kind != EXTENDED:
            yield history.finding(Kind.FINAL, f"event {event.seq} ({event.kind}) left a success without more epochs")
        state = event.new_state
    if state is not history.job.state:
        yield history.finding(Kind.CHAIN, f"its last event leads to {state}, but it is {history.job.state}")


def _ends(history: History) -> Iterator[Finding]:
    """Yield runs that ended more often than once, or not at all where they should have."""
    ends = Counter(event.run for event in history.events if event.new_state in states.FINAL)
    for run in range(1, history.job.run + 1):
        expected = 1 if run < history.job.run or history.job.final else 0
        if ends.pop(run, 0) != expected:
            found = sum(event.run == run and event.new_state in states.FINAL for event in history.events)
            yield history.finding(Kind.FINAL, f"run {run} has {found} ends, not {expected}")
    for run in ends:
        yield history.finding(Kind.FINAL, f"run {run} has ended, but the job is in run {history.job.run}")
    successes = sum(event.new_state is states.JobState.SUCCEEDED for event in history.events)
    extensions = sum(event.old_state is states.JobState.SUCCEEDED for event in history.events)
    if successes > 1 + extensions:
        again = f" and was extended {extensions} times" if extensions else ""
        yield history.finding(Kind.FINAL, f"it succeeded {successes} times{again}")


def _fence(history: History) -> Iterator[Finding]:
    """Yield events of an attempt or a run that was over."""
    attempt, run = 0, 1
    for event in history.events:
        if event.attempt < attempt or event.run < run:
            yield history.finding(
                Kind.FENCE,
                f"event {event.seq} ({event.kind}) is of run {event.run}, attempt {event.attempt},"
                f" after one of run {run}, attempt {attempt}",
            )
        attempt, run = max(attempt, event.attempt), max(run, event.run)


def _attempts(history: History) -> Iterator[Finding]:
    """Yield claims without their attempt, attempts without their claim, and attempts that should have ended."""
    job = history.job
    claims = [
        (event.attempt, event.run, event.stage)
        for event in history.events
        if event.new_state is states.JobState.RUNNING
    ]
    rows = [(row.attempt, row.run, row.stage) for row in history.attempts]
    if claims != rows:
        odd = sorted({str(entry[0]) for entry in set(claims) ^ set(rows)})
        yield history.finding(Kind.ATTEMPT, f"its claims and its attempts differ at {', '.join(odd) or 'their order'}")
    if [row.attempt for row in history.attempts] != list(_numbers(history)):
        yield history.finding(Kind.ATTEMPT, f"it has {len(rows)} attempts and counts {job.attempt}")
    for row in history.attempts:
        running = job.state is states.JobState.RUNNING and row.attempt == job.attempt
        if row.ended_at is None and not running:
            yield history.finding(Kind.ATTEMPT, f"attempt {row.attempt} has not ended, but the job is {job.state}")
        if row.ended_at is not None and (running or row.outcome is None):
            said = "the job still runs in it" if running else "nobody says how"
            yield history.finding(Kind.ATTEMPT, f"attempt {row.attempt} has ended, but {said}")


def _devices(history: History) -> Iterator[Finding]:
    """Yield attempts that were given another number of devices than their stage takes."""
    for row in history.attempts:
        wanted, given = history.job.demand.at(row.stage).gpus, gangs.counted(row.device)
        if given != wanted:
            said = f"attempt {row.attempt} ({row.stage}) was given {row.device}"
            yield history.finding(Kind.DEVICE, f"{said}, and its stage takes {wanted}")


def _numbers(history: History) -> Iterator[int]:
    """Yield the numbers that its attempts have: none is left out but where it came from a backup."""
    first = 1
    for before, event in pairwise(history.events):
        if event.kind == RESTORED:
            yield from range(first, before.attempt + 1)
            first = event.attempt + 1
    yield from range(first, history.job.attempt + 1)


def _line(history: History) -> Iterator[Finding]:
    """Yield attempts whose place on the line does not follow from where later ones resumed."""
    stages = {row.attempt: row.stage for row in history.attempts}
    begun = {row.attempt for row in history.trainings}
    for row in history.attempts:
        if row.line_end != history.line_ends[row.attempt]:
            said = f"its rows count up to step {row.line_end}, not {history.line_ends[row.attempt]}"
            yield history.finding(Kind.LINE, f"attempt {row.attempt}: {said}")
    for row in history.trainings:
        if (row.resumed_from is None) != (row.first_step == 0) or row.resumed_from not in {None, *begun}:
            said = f"it began at step {row.first_step}, from attempt {row.resumed_from}"
            yield history.finding(Kind.LINE, f"attempt {row.attempt}: {said}")
    training = {row.attempt or 0 for row in history.epochs}
    training |= {row.attempt for row in history.checkpoints} | {row.attempt for row in history.steps}
    for attempt in sorted(training - begun):
        yield history.finding(
            Kind.LINE, f"attempt {attempt} ({stages.get(attempt)}) has rows, but never began to train"
        )
    for point in history.checkpoints:
        passed = any(history.passed_over(row.attempt) for row in history.trainings if row.attempt > point.attempt)
        if not history.counts(point.attempt, point.step) and not passed:
            said = f"the checkpoint of step {point.step} of attempt {point.attempt} was passed over"
            yield history.finding(Kind.LINE, f"{said}, and nobody said that it was damaged")


def _epochs(history: History) -> Iterator[Finding]:
    """Yield gaps, doubles and halves among the epochs on the line, and an end that came too early or too late."""
    found = [(row.epoch, row.split) for row in history.line]
    closed = max((row.epoch for row in history.line), default=0)
    succeeded = history.job.state is states.JobState.SUCCEEDED
    spec = history.job.spec
    ends = stopping.last_epoch(spec, stopping.watched(spec, history.line))
    wanted = ends if succeeded else min(closed, ends)
    if found != [(epoch, split) for epoch in range(1, wanted + 1) for split in ("train", "val")]:
        said = ", ".join(f"{epoch} {split}" for epoch, split in found) or "none"
        yield history.finding(Kind.EPOCHS, f"epochs 1 to {wanted} should be on its line once; there are: {said}")
    if history.line and any(row.step != row.epoch * (history.line[0].step or 0) for row in history.line):
        steps = ", ".join(str(row.step) for row in history.line if row.split == "train")
        yield history.finding(Kind.EPOCHS, f"its epochs are of different length: they end at the steps {steps}")
    if succeeded and history.kept and history.kept[0].epoch != wanted:
        yield history.finding(Kind.EPOCHS, f"its last checkpoint is of epoch {history.kept[0].epoch}, not {wanted}")


def _steps(history: History) -> Iterator[Finding]:
    """Yield gaps among the steps on the line. Doubles cannot be: each attempt has a step once, and the line is cut."""
    if any(event.kind == LEFT_OUT for event in history.events):
        return
    begins = {row.attempt: row.first_step or 0 for row in history.trainings}
    for span in history.steps:
        if span.first != begins.get(span.attempt, 0) + 1 or span.count != span.last - span.first + 1:
            said = f"{span.count} steps from {span.first} to {span.last}, having begun at {begins.get(span.attempt)}"
            yield history.finding(Kind.STEPS, f"attempt {span.attempt} has the {span.name} of {said}")
    reached = 0
    lasts = {span.attempt: span.last for span in history.steps}
    for row in history.trainings:
        if (row.first_step or 0) > reached:
            said = f"attempt {row.attempt} went on from step {row.first_step}"
            yield history.finding(Kind.STEPS, f"{said}, but only {reached} steps before it are known")
        reached = max(row.first_step or 0, lasts.get(row.attempt, 0))
    ends = max((row.step or 0 for row in history.line), default=0)
    if reached < ends or (history.job.state is states.JobState.SUCCEEDED and reached != ends):
        yield history.finding(Kind.STEPS, f"its last epoch ended at step {ends}, its last known step is {reached}")


def _repeated(history: History) -> Iterator[Finding]:
    """Yield attempts that did more steps again than there were since the checkpoint before them."""
    for row, repeated, limit in repeats(history):
        if repeated > limit:
            said = f"attempt {row.attempt} repeated {repeated} steps from step {row.first_step} on"
            yield history.finding(Kind.REPEATED, f"{said}; {limit} are allowed")


def repeats(history: History) -> Iterator[tuple[jobs.Attempt, int, int]]:
    """Yield each training that went on, with the steps that it repeated and how many it may.

    None after a drain or a pause; else as many as lie between three checkpoints, where that is known and all are
    listed: those behind the last one, and those that were made while the next one was being written.
    """
    per_epoch = next((row.step for row in history.epochs if row.epoch == 1), None)
    between = [steps for steps in (history.job.spec.checkpoint_steps, per_epoch) if steps]
    reached = 0
    before: jobs.Attempt | None = None
    for row in history.trainings:
        repeated = max(0, reached - (row.first_step or 0))
        if before is not None and not history.passed_over(row.attempt) and not history.forgotten(before, row):
            most = 2 * min(between) if between and not history.gave_up(before) else repeated
            yield row, repeated, 0 if _drained(history, before) else most
        reached = max(row.first_step or 0, row.last_step or 0)
        before = row


def _drained(history: History, attempt: jobs.Attempt) -> bool:
    """Whether the attempt wrote a checkpoint and went: where it had to be killed, its event says so."""
    return attempt.outcome in {"drained", "paused", "yielded"} and any(
        event.attempt == attempt.attempt and event.old_state is states.JobState.RUNNING and _said_all(event)
        for event in history.events
    )


def unsaved(events: Iterable[jobs.Event], attempt: int) -> bool:
    """Whether an attempt was ended, or still stands, without its word that its last step is in a checkpoint."""
    ended = next((row for row in events if row.attempt == attempt and row.old_state is states.JobState.RUNNING), None)
    taken_back = ended is not None and ended.reason in {states.Reason.LOST, states.Reason.POISON}
    return ended is None or taken_back or UNSAID in (ended.detail or "")


def _said_all(event: jobs.Event) -> bool:
    return event.detail is None or (event.kind == YIELDED and UNSAID not in event.detail)


def _evaluation(history: History) -> Iterator[Finding]:
    """Yield a success without an evaluation of a checkpoint on the line, by the attempt that succeeded."""
    ended = next((event for event in reversed(history.events) if event.new_state is states.JobState.SUCCEEDED), None)
    if history.job.state is not states.JobState.SUCCEEDED or ended is None:
        return
    made = next((evaluation for evaluation in history.evaluations if evaluation.attempt == ended.attempt), None)
    if made is None:
        yield history.finding(Kind.EVALUATION, f"attempt {ended.attempt} succeeded and recorded no evaluation")
    elif (made.checkpoint_step, made.checkpoint_sha256) not in {(point.step, point.sha256) for point in history.kept}:
        yield history.finding(
            Kind.EVALUATION, f"a checkpoint of step {made.checkpoint_step} was evaluated, not one of its"
        )


def _retention(history: History) -> Iterator[Finding]:
    """Yield checkpoints that should have gone, and marks on the wrong ones."""
    keep = history.job.spec.keep
    for point in retention.superfluous(history.kept, keep=keep):
        if point.step in history.held:
            continue
        yield history.finding(
            Kind.RETENTION, f"the checkpoint of step {point.step} is kept beyond the last {keep} and the best"
        )
    measured = [point for point in reversed(history.kept) if point.accuracy is not None]
    best = max(measured, key=lambda point: point.accuracy or 0.0, default=None)
    last = history.kept[0] if history.kept else None
    for point in history.checkpoints:
        if (point.best, point.last) != (point is best, point is last):
            marks = " and ".join(word for word, marked in (("best", point.best), ("last", point.last)) if marked)
            yield history.finding(Kind.RETENTION, f"the checkpoint of step {point.step} is marked {marks or 'nothing'}")
    accuracy = max((row.accuracy for row in history.line if row.split == "val"), default=None)
    if history.job.best_accuracy != accuracy:
        yield history.finding(
            Kind.RETENTION, f"its best accuracy is said to be {history.job.best_accuracy}, its epochs say {accuracy}"
        )


RULES = (_chain, _ends, _fence, _attempts, _devices, _line, _epochs, _steps, _repeated, _evaluation, _retention)
