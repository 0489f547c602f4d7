"""What a soak came to, in Markdown."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core import history, jobs, states
from orchestrator.core.findings import Finding, Kind
from tests.faults.soak.clients import Told
from tests.faults.soak.killer import Blow


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a soak is to do."""

    jobs: int = 40
    kills: int = 40
    seed: int
    database: str = "sqlite"
    every: float = 0.2  #: seconds between two blows at least, on average

    @property
    def command(self) -> str:
        """The command that does it."""
        words = f"--jobs {self.jobs} --kills {self.kills} --seed {self.seed} --database {self.database}"
        return f"python -m tests.faults.soak {words} --every {self.every:g}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a soak found."""

    plan: Plan
    seconds: float
    blows: Sequence[Blow]
    told: Sequence[Told]
    untrue: Sequence[str]  #: what clients were told and is not so, and clients that died
    found: Sequence[Finding]  #: by the audit
    states: Counter[str]
    attempts: Counter[str]
    gangs: int  #: attempts on two devices
    nodes: int
    taken_back: Sequence[float]  #: seconds from a blow to the end of the attempt that it hit
    recovered: Sequence[float]  #: seconds from a blow to the next claim, where no backoff is due
    repeated: Sequence[tuple[int, int]]  #: steps, and how many were allowed

    @property
    def faults(self) -> list[str]:
        """All that should not be, a sentence each."""
        return [*self.untrue, *(f"{one.kind} {one.job or ''}: {one.sentence}" for one in self.found)]


def recoveries(
    rows: Sequence[history.History], blows: Sequence[Blow], nodes: Mapping[str, int]
) -> tuple[list[float], list[float]]:
    """Return the seconds from each blow that cost an attempt to its end, and to the next claim without a backoff.

    `nodes` has the process id of each worker.
    """
    taken_back, recovered = [], []
    for row in rows:
        for attempt, following in itertools.zip_longest(row.attempts, row.attempts[1:]):
            if attempt.reason is not states.Reason.LOST or attempt.ended_at is None:
                continue
            hits = list(_hits(row.job, attempt, blows, nodes))
            if hits:
                taken_back.append(attempt.ended_at.timestamp() - min(hits))
            if hits and following is not None and _at_once(row, attempt):
                recovered.append(following.started_at.timestamp() - min(hits))
    return taken_back, recovered


def _hits(job: jobs.Job, attempt: jobs.Attempt, blows: Sequence[Blow], nodes: Mapping[str, int]) -> Iterator[float]:
    """Yield when the attempt was hit: its own process, or one of its node's slots, or the node."""
    folder = f"{job.id}/attempt-{attempt.attempt:04d}"
    began, ended = attempt.started_at.timestamp(), attempt.ended_at and attempt.ended_at.timestamp()
    for blow in blows:
        deadly = blow.how in {"KILL", "TERM"} and blow.role in {"training", "slot", "node"}
        its_own = blow.folder.endswith(folder) if blow.folder else blow.node == nodes.get(attempt.worker)
        if deadly and its_own and began <= blow.at <= (ended or 0):
            yield blow.at


def _at_once(row: history.History, attempt: jobs.Attempt) -> bool:
    """Whether the retry of a lost attempt had no backoff: it was the first without progress."""
    return any(event.attempt == attempt.attempt and "retry 1 of" in (event.detail or "") for event in row.events)


def markdown(outcome: Outcome) -> str:
    """Return the report."""
    plan, blows = outcome.plan, Counter((blow.role, blow.how) for blow in outcome.blows)
    lines = [
        f"# Soak on {'PostgreSQL' if plan.database == 'postgresql' else 'SQLite'}",
        "",
        f"Written by `{plan.command}`.",
        "Two nodes, two people at their command lines and one broker, all of them real processes,",
        "were struck at random while tiny jobs trained. In the end a history checker compared what the people had been",
        "told with the database, and the audit of `orch doctor` looked at everything.",
        "",
        "| what | figure |",
        "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in _figures(outcome)),
        "",
        "| struck | how | times |",
        "|---|---|---|",
        *(f"| {role} | {how} | {times} |" for (role, how), times in sorted(blows.items())),
        "",
        *(f"- {fault}" for fault in outcome.faults),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _figures(outcome: Outcome) -> Iterator[tuple[str, object]]:
    told = outcome.told
    yield "jobs promised", len({entry.job for entry in told if entry.asked == "submit" and entry.code == 0})
    for what, kind in (("jobs lost", Kind.MISSING), ("jobs completed twice", Kind.FINAL)):
        yield what, len({finding.job for finding in outcome.found if finding.kind is kind})
    yield "findings of the history checker and the audit", len(outcome.faults) or "none"
    yield "ends of jobs", _counted(outcome.states)
    yield "blows", len(outcome.blows)
    yield "commands; killed in the middle", f"{len(told)}; {sum(entry.code is None for entry in told)}"
    yield "nodes started", outcome.nodes
    yield "attempts", f"{sum(outcome.attempts.values())}: {_counted(outcome.attempts)}"
    yield "seconds from a deadly blow to the end of its attempt", percentiles(outcome.taken_back)
    yield "seconds from a deadly blow to the next claim, where no backoff is due", percentiles(outcome.recovered)
    yield "trainings on two devices; that made room for urgent ones", f"{outcome.gangs}; {outcome.attempts['yielded']}"
    yield "steps repeated", _repeats(outcome.repeated)
    yield "seed", outcome.plan.seed
    yield "seconds", f"{outcome.seconds:.0f}"


def _counted(what: Counter[str]) -> str:
    return ", ".join(f"{times} {name}" for name, times in what.most_common())


def percentiles(seconds: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the largest in words."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return f"p50 {p50:.2f}, p99 {p99:.2f}, most {ordered[-1]:.2f} ({len(ordered)} times)"


def _repeats(repeated: Sequence[tuple[int, int]]) -> str:
    most = max((steps for steps, _ in repeated), default=0)
    allowed = " or ".join(map(str, sorted({limit for _, limit in repeated})))
    over = sum(steps > limit for steps, limit in repeated)
    return f"at most {most} by one of {len(repeated)} attempts that went on; {allowed} are allowed, {over} did more"
