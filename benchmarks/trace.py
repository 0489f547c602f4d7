"""A day of three users, played through in simulated time on the real store: whether the order is kept, and foreseen.

python -m benchmarks.trace [--jobs 1000] [--seed 1] [--write]
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import line, queues, simulation, workload
from orchestrator import config
from orchestrator.core import states
from orchestrator.core.forecast import Interval
from orchestrator.core.states import Stage
from orchestrator.service import why
from orchestrator.store import sql

PAGE = Path(__file__).parents[1] / "docs" / "trace.md"

#: After so many submissions one job that waits and one that trains are asked for.
ASK_EVERY = 8

#: What has to hold.
COVERED = 0.8


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `orch why` said of a job, as times of the trace."""

    number: int
    at: float
    stage: Stage
    begins: Interval | None
    ends: Interval | None


@dataclass(kw_only=True)
class Found:
    """What came of a trace."""

    seed: int
    plans: Sequence[workload.Plan]
    ours: simulation.Run
    plain: simulation.Run  #: first come, first served: nobody is passed over who cannot begin
    lenient: simulation.Run  #: the same, but who cannot begin is passed over
    patience: line.Patience
    wrong_room: Sequence[str]  #: room that was made for one job and taken by another
    too_late: int  #: rooms that nobody needed any more when they were made
    asked: Sequence[Asked]
    took: float  #: seconds of this machine

    def covered(self, what: str) -> tuple[int, int]:
        """Return how many of the intervals for `begins` or `ends` held what happened, of how many."""
        held = [interval.low <= seen - one.at <= interval.high for one, interval, seen in self._pairs(what)]
        return sum(held), len(held)

    def width(self, what: str) -> float:
        """Return the median width of these intervals, as a share of the time that was foreseen for the middle."""
        return statistics.median(
            (interval.high - interval.low) / max(1.0, (interval.high + interval.low) / 2)
            for _, interval, _ in self._pairs(what)
        )

    def _pairs(self, what: str) -> list[tuple[Asked, Interval, float]]:
        """Return questions with their answers and what happened; what fails ends at no time that could be foreseen."""
        pairs = []
        for one in self.asked:
            interval = one.begins if what == "begins" else one.ends
            seen = self._began(one) if what == "begins" else self._ended(one.number, one.at)
            if interval is not None and seen is not None:
                pairs.append((one, interval, seen))
        return pairs

    def _began(self, one: Asked) -> float | None:
        return next((at for at in self.ours.begins(one.number, one.stage) if at >= one.at), None)

    def _ended(self, number: int, after: float) -> float | None:
        own = [held for held in self.ours.stages if held.one.plan.number == number]
        if any(held.reason or (held.yielded and held.until > after) for held in own):
            return None
        return max((held.until for held in own if held.stage is Stage.EVALUATE), default=None)


def run(count: int, *, seed: int, home: Path, ask_every: int = ASK_EVERY) -> Found:
    """Play a trace through, in orch's order and in that of submission."""
    started = time.perf_counter()
    plans = workload.plans(count, seed=seed)
    clock = queues.Clock()
    settings = config.Settings(home=home)
    with closing(sql.open_store(settings, clock=clock)) as store:
        queue, asked, looked = queues.InStore(store, clock), list[Asked](), list[int]()
        source = random.Random(seed)  # noqa: S311 - no secret

        def look(number: int, held: Sequence[queues.Held]) -> None:
            if number >= ask_every * len(looked):
                looked.append(number)
                asked.extend(_ask(settings, queue, held, clock, source))

        ours = simulation.Simulation(queue, clock, look).work_off(plans)
    return Found(
        seed=seed,
        plans=plans,
        ours=ours,
        plain=_in_memory(plans, line.strictly_in_order),
        lenient=_in_memory(plans, line.in_order),
        patience=queue.patience,
        wrong_room=queue.wrong_room,
        too_late=queue.too_late,
        asked=asked,
        took=time.perf_counter() - started,
    )


def _in_memory(plans: Sequence[workload.Plan], policy: line.Policy) -> simulation.Run:
    clock = queues.Clock()
    return simulation.Simulation(queues.InMemory(policy, clock), clock).work_off(plans)


def _ask(
    settings: config.Settings,
    queue: queues.InStore,
    held: Sequence[queues.Held],
    clock: queues.Clock,
    source: random.Random,
) -> list[Asked]:
    """Ask for one job that waits and one that runs, of those that wait for no other one."""
    for worker in queues.WORKERS:
        queue.store.beat_worker(worker, states.WorkerState.ACTIVE)
    for one in held:
        if one.stage is Stage.TRAIN:
            queue.progress(one)
    waiting = [one.plan.number for stage in Stage for one in queue.line.standing(stage)]
    running = [one.one.plan.number for one in held]
    return [_answer(settings, queue, source.choice(some), clock) for some in (waiting, running) if some]


def _answer(settings: config.Settings, queue: queues.InStore, number: int, clock: queues.Clock) -> Asked:
    answer = why.why(settings, queue.store, queue.ids[number])
    return Asked(number=number, at=clock.seconds, stage=answer.job.stage, begins=answer.begins, ends=answer.ends)


def faults(found: Found) -> list[str]:
    """Return what does not hold; that the order is the rule's holds where there is anything to look at."""
    bad = [f"overtaken against the rule: {one}" for one in found.patience.faults]
    bad += [f"room was made in vain: {one}" for one in found.wrong_room]
    if found.patience.passed_over >= len(workload.USERS):
        bad.append(f"a user was passed over {found.patience.passed_over} times")
    if _used(found.ours) < _used(found.plain) - 1e-9:
        bad.append("the devices worked less than first come, first served would let them")
    for what in ("begins", "ends"):
        right, whole = found.covered(what)
        if right < COVERED * whole:
            bad.append(f"{what}: {right} of {whole} intervals held what happened")
    return bad


_PAGE = """# The order of a day, simulated

{jobs:,} jobs of three users, played through in simulated time by `python -m benchmarks.trace` (seed {seed}): orch's
store and the SQL of its claim on SQLite, with a clock that is moved by hand and workers that only say how long a stage
took. Ada submits sweeps of {sweep} jobs alike, Bob and Cyd single jobs; priorities are -1 to 5. Of all, {after:.0%}
wait for another one, {bad:.0%} fail for good at their first stage with those that wait for them, and {lost:.0%}
lose their worker in the middle of a training and begin it again.

There are three classes of devices, {devices} of each, each class on a worker of its own: {kinds}.
An epoch takes {slowness} times as long on them. Half of the jobs run anywhere, a third want a GPU, the others
one with 40 GB: they say so with `--device` and `--gpu-memory`. {preemptible:.0%} of the jobs (whole sweeps of Ada) are
preemptible, with the lowest priority, and run for {stay:.0f} minutes at least before they yield. Each worker has
{downloads} slots for downloads.

| question | answer |
|---|---|
| claims that the rule of `core/ordering.py`, played in memory, would not have made | none of {claims:,} |
| later jobs of a user that went before earlier ones, beyond what their priority is worth | {faults} |
| the longest time by which a later job overtook an earlier one, within what its priority is worth | {overtaken:.1f} h |
| turns in a row that passed over a user who had nothing at the stage | {passed} (allowed: {turns}) |
| trainings that made room for an urgent job, of how many preemptible ones | {yields} of {may_yield} |
| of these, how often the urgent job had begun elsewhere before the room was made | {too_late} |
| of the others, how often another job than the urgent one took the room | {wrong} |
| share of the devices' time that went into work, until all was done | {ours:.1%} |
| the same, if jobs were served as they came | {plain:.1%} |
| the same, if those that cannot begin were passed over, too | {lenient:.1%} |
| `orch why`: stages that began within the interval that was told | {begins} |
| `orch why`: jobs that ended within the interval that was told | {ends} |

To hold: no claim against the rule, nobody overtaken or passed over beyond what it allows, no less work than if jobs
were served as they come, and {covered:.0%} of the intervals right. {verdict}

The ends leave out jobs that failed, lost their worker or made room later: nobody foresees that. To foresee a begin, the
order of claims is played forward, on the devices that each job may have, with the times that jobs take there. What
others will submit meanwhile is foreseen by what they submitted of late, with a margin for chance, which is why the
intervals are wide. Where an urgent job may get room at once, the soonest time is now.

Hours from submission to the beginning of the training:

| jobs | how many | median | longest |
|---|---|---|---|
{waits}

It took {took:.0f} seconds.
"""


def page(found: Found) -> str:
    """Return the report in Markdown."""
    begins, ends = (_coverage(found, what) for what in ("begins", "ends"))
    return _PAGE.format(
        jobs=len(found.plans),
        seed=found.seed,
        sweep=workload.SWEEP,
        after=workload.AFTER,
        bad=workload.BAD,
        lost=workload.LOST,
        downloads=queues.DOWNLOADS,
        devices=queues.DEVICES,
        kinds=", ".join(queues.WORKERS.values()),
        slowness=", ".join(f"{times:g}" for times in workload.SLOWNESS.values()),
        preemptible=workload.PREEMPTIBLE,
        stay=queues.STAY.total_seconds() / 60,
        yields=sum(held.yielded for held in found.ours.stages),
        may_yield=sum(plan.spec.preemptible for plan in found.plans),
        wrong=len(found.wrong_room) or "none",
        too_late=found.too_late,
        claims=len(found.ours.stages),
        faults=len(found.patience.faults) or "none",
        overtaken=found.patience.overtaken.total_seconds() / 3600,
        passed=found.patience.passed_over,
        turns=len(workload.USERS) - 1,
        **{name: _used(getattr(found, name)) for name in ("ours", "plain", "lenient")},
        begins=begins,
        ends=ends,
        waits="\n".join(_waits(found)),
        took=found.took,
        covered=COVERED,
        verdict=f"What does not: {'; '.join(bad)}." if (bad := faults(found)) else "All of it does.",
    )


def _coverage(found: Found, what: str) -> str:
    right, whole = found.covered(what)
    return f"{right} of {whole}, {right / max(1, whole):.0%}; median width {found.width(what):.0%} of the time told"


def _used(played: simulation.Run) -> float:
    return played.used(played.ends)


def _waits(found: Found) -> Iterator[str]:
    groups = {
        **{f"of {user}": [plan for plan in found.plans if plan.user == user] for user in workload.USERS},
        **{
            f"of priority {priority}": [plan for plan in found.plans if plan.priority == priority]
            for priority in sorted(set(workload.PRIORITIES))
        },
        "preemptible": [plan for plan in found.plans if plan.spec.preemptible],
        **{
            f"for {', '.join(kind.demand.said()) or 'any device'}": [
                plan for plan in found.plans if plan.demand == kind.demand
            ]
            for kind in workload.KINDS
        },
    }
    for name, plans in groups.items():
        waits = [wait / 3600 for plan in plans for wait in found.ours.wait(plan.number)]
        if waits:
            yield f"| {name} | {len(waits)} | {statistics.median(waits):.2f} | {max(waits):.2f} |"


def main() -> int:
    """Play a trace through, print or write its report, and say what does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="into docs/trace.md")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="orch-bench-") as home:
        found = run(given.jobs, seed=given.seed, home=Path(home))
    if given.write:
        PAGE.write_text(page(found), encoding="utf-8")
    else:
        print(page(found))
    bad = faults(found)
    print("\n".join(bad) or "All of it holds.", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
