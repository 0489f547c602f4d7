"""What must hold after every step and at the end, by an account of our own: it asks orch's rules for nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestrator.core import dependencies, history, jobs, states
from orchestrator.store import attemptmodels, jobmodels, sql
from tests.conftest import HandClock

State, Wish = states.JobState, states.Wish

LEASE = 30.0
FINAL = {State.SUCCEEDED, State.FAILED, State.CANCELLED}

#: Our own copy of what may follow what: a change of the real table is to be noticed.
LEGAL = {
    None: {State.QUEUED},
    State.QUEUED: {State.RUNNING, State.PAUSED, State.CANCELLED, State.FAILED},
    State.RUNNING: {State.QUEUED, State.PAUSED, State.SUCCEEDED, State.FAILED, State.CANCELLED},
    State.PAUSED: {State.QUEUED, State.CANCELLED},
    State.SUCCEEDED: set(),
    State.FAILED: {State.QUEUED},
    State.CANCELLED: {State.QUEUED},
}

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
        **{(State.RUNNING, wish): (State.RUNNING, Wish.PAUSE) for wish in Wish if wish is not Wish.CANCEL},
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

#: The wish that an event tells of.
_WISHES = {
    "cancel_requested": Wish.CANCEL,
    "pause_requested": Wish.PAUSE,
    "pause_taken_back": Wish.RUN,
    "yield_requested": Wish.YIELD,
    "yield_taken_back": Wish.RUN,
}


class Picture(NamedTuple):
    """Rows of one moment."""

    jobs: Sequence[Any]
    events: Sequence[Any]  #: since the last look
    open_attempts: Sequence[Any]
    deleted: Sequence[Any]


class Account:
    """What people and workers were told, and what the events have said up to now."""

    def __init__(self, store: sql.SqlStore, clock: HandClock) -> None:
        self._store = store
        self._clock = clock
        self.promised: list[str] = []
        self.deleted: set[str] = set()
        self.priorities: dict[str, int] = {}
        self.needs: dict[str, dependencies.Dependency] = {}  #: what jobs were told to wait for
        self.slots: dict[str, int] = {}  #: how many each worker has, with a device each
        self.crashed: set[str] = set()  #: workers
        self.away = 0.0  #: seconds without the database
        self.signs: dict[tuple[str, int], float] = {}  #: when an attempt's lease was last seen to move, by its holder
        self.handed_out: set[tuple[str, int]] = set()
        self._seen = 0  #: the last event that was looked at
        self._state: dict[str, states.JobState] = {}
        self._attempt: Counter[str] = Counter()
        self._run: Counter[str] = Counter()
        self._ends: Counter[tuple[str, int]] = Counter()
        self._wished: dict[str, states.Wish] = {}  #: what people were told of a running job

    @property
    def there(self) -> list[str]:
        """The jobs that have not been deleted."""
        return [job_id for job_id in self.promised if job_id not in self.deleted]

    def up(self) -> float:
        """Return the seconds in which the database was there."""
        return self._clock.monotonic() - self.away

    def lives(self, worker: jobs.WorkerIdentity) -> bool:
        """Whether the worker has not crashed."""
        return worker.id not in self.crashed

    def look(self) -> None:
        """Nothing that was promised is lost, nothing changes without its event, nothing is held twice."""
        now = self._picture()
        there = {row.id: row for row in now.jobs}
        assert set(self.promised) == set(there) | self.deleted, "a promised job is lost, or one was made up"
        assert not set(there) & self.deleted
        assert {row.id for row in now.deleted} == self.deleted, "nobody knows that a job was deleted"
        for row in now.events:
            self._check_event(row)
        for row in now.jobs:
            assert row.state is self._state[row.id], "a state changed without an event"
            assert row.attempt == self._attempt[row.id]
        running = sorted((row.id, row.attempt) for row in now.jobs if row.state is State.RUNNING)
        assert sorted((row.job_id, row.attempt) for row in now.open_attempts) == running
        taken: Counter[str] = Counter()
        for row in now.jobs:
            if row.state is State.RUNNING:
                taken[row.worker] += row.spec["gpus"] if row.stage is states.Stage.TRAIN else 1
        assert all(count <= self.slots[worker] for worker, count in taken.items()), f"devices are held twice: {taken}"

    def look_at_the_end(self) -> None:
        """Each run has ended once, and the rules of the audit find nothing in any history."""
        self.look()
        for job in self._store.jobs(jobs.JobFilter()):
            assert self._ends[job.id, job.run] == (job.state in FINAL)
            assert all(self._ends[job.id, run] == 1 for run in range(1, job.run))
            found = [finding.sentence for finding in history.check(self._store.history(job.id))]
            assert found == [], found

    def _picture(self) -> Picture:
        """Return what the database says, all of it from one moment, events since the last look."""
        event, attempt = jobmodels.events.c, attemptmodels.attempts.c
        queries = (
            jobmodels.jobs.select(),
            jobmodels.events.select().where(event.seq > self._seen).order_by(event.seq),
            attemptmodels.attempts.select().where(attempt.ended_at.is_(None)),
            jobmodels.deleted_jobs.select(),
        )
        picture = Picture(*self._store.database.read(lambda c: [c.execute(query).all() for query in queries]))
        self._seen = max([self._seen, *(row.seq for row in picture.events)])
        return picture

    def _check_event(self, row: Any) -> None:
        job_id = row.job_id
        assert row.attempt >= self._attempt[job_id], "an attempt went back"
        assert row.run >= self._run[job_id], "a run went back"
        self._attempt[job_id], self._run[job_id] = row.attempt, row.run
        if row.new_state is None:
            if row.kind == "yield_requested":
                self._check_yield(row)
            self._wished[job_id] = _WISHES.get(row.kind, self._wished.get(job_id, Wish.RUN))
            return
        before = self._state.get(job_id)
        assert row.old_state is before, f"{row.kind} came from {row.old_state}, and the job was {before}"
        assert row.new_state in LEGAL[before], f"{before} to {row.new_state}"
        if before is State.RUNNING:
            self._check_end_of_attempt(row)
        elif row.new_state is State.FAILED:
            assert row.reason is states.Reason.DEPENDENCY, f"a {before} job failed for {row.reason}"
            assert not self._has_come(self.needs[job_id]), "it failed though what it waited for has come"
        elif row.kind == "claimed":
            assert job_id not in self.needs or self._has_come(self.needs[job_id]), "it did not wait"
        elif before is not None:
            assert row.actor == "ada", f"{row.actor} moved a {before} job"
        self._state[job_id] = row.new_state
        if row.new_state in FINAL:
            self._ends[job_id, row.run] += 1
            assert self._ends[job_id, row.run] == 1, "a run ended twice"

    def waits_in_vain(self, job: jobs.Job) -> bool:
        """Whether the job waits for one that stays paused, or that itself waits so."""
        need = self.needs.get(job.id)
        if not job.blocked or need is None or need.needs in self.deleted:
            return False
        needed = self._store.get(need.needs)
        return needed.state is State.PAUSED or self.waits_in_vain(needed)

    def _has_come(self, need: dependencies.Dependency) -> bool:
        if self._state[need.needs] is State.SUCCEEDED:
            return True
        ended = need.needs in self.deleted or any(job_id == need.needs for job_id, _ in self._ends)
        return need.rule is states.After.ANY and ended

    def _check_yield(self, row: Any) -> None:
        to = str(row.detail).split()[1].rstrip(",")
        assert self.priorities[to] > self.priorities[row.job_id], "a job yields to one that is not urgent"
        assert self._state[row.job_id] is State.RUNNING
        assert row.stage is states.Stage.TRAIN
        wished = self._wished.get(row.job_id, Wish.RUN)
        assert wished in {Wish.RUN, Wish.YIELD}, f"a yield has overruled the wish to {wished}"

    def _check_end_of_attempt(self, row: Any) -> None:
        wish = self._wished.pop(row.job_id, Wish.RUN)
        if wish is Wish.CANCEL:
            assert row.new_state in {State.CANCELLED, State.SUCCEEDED}, f"cancelled in vain: {row.new_state}"
        if wish is Wish.PAUSE:
            assert row.new_state is not State.QUEUED, "paused in vain"
        if row.kind == "yielded":
            assert row.detail.startswith("to nobody" if wish is Wish.RUN else "to "), (
                f"{row.detail} by a wish to {wish}"
            )
        detail = str(row.detail)
        sign = self.signs.get((row.job_id, row.attempt))
        if "no beat of its lease" in detail and sign is not None:
            assert self.up() - sign >= LEASE, "a living lease was taken back"
        if "process on host-a has ended" in detail and row.job_id not in self.deleted:
            holder = self._store.attempts(row.job_id)[row.attempt - 1].worker
            assert holder in self.crashed, "a living worker was released"
