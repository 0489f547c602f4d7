"""The soak: nodes, a broker, clients and tiny jobs under random blows; then a history checker and the oracle.

`python -m tests.faults.soak --jobs 500 --kills 1000 --database postgresql --report soak.md` is the long form.
"""

import argparse
import contextlib
import itertools
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import errors
from orchestrator.core import history, jobs, states
from orchestrator.service import audit
from tests.faults import clients
from tests.faults.killer import Blow, Killer
from tests.support import pictures, postgres, running

NODES = 2
CLIENTS = 2

#: Seconds without any change of a job's state after which the queue is said to hang: the longest backoff, and more.
_PATIENCE = 180.0

_SPEC = """
data = "{data}"
network = "densenet_bc_40_12"
blocks = [1]
growth_rate = 2
image_size = 8
crop_scale = [0.5, 1.0]
batch_size = 2
epochs = {epochs}
checkpoint_steps = {between}
loader_workers = 0
lr = 0.01
"""
_EPOCHS, _PICTURES = 3, 30  #: pictures a class; as many steps an epoch
_BETWEEN = 10  #: steps between checkpoints


@dataclass(kw_only=True)
class Outcome:
    """What a soak found."""

    database: str
    seed: int
    seconds: float
    blows: list[Blow]
    told: list[clients.Told]
    faults: list[str]
    states: Counter[str]
    attempts: Counter[str]
    nodes: int
    taken_back: list[float]  #: seconds from a blow to the end of the attempt that it hit
    recovered: list[float]  #: seconds from a blow to the next claim, where no backoff is due
    repeated: list[tuple[int, int]]  #: steps, and how many were allowed


@dataclass
class Soak:
    """One run."""

    installed: running.Installation
    size: int  #: jobs
    kills: int
    seed: int
    database: postgres.Server | None
    every: float  #: seconds between two blows, on average
    nodes: int = 0
    _clients: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self) -> Outcome:
        """Go through with it."""
        began = time.monotonic()
        dice = random.Random(self.seed)  # noqa: S311 - to be repeated, not to be secret
        killer = Killer(self.installed.settings, dice, self.database.restart if self.database else None)
        self._keep_nodes()
        self._start_clients()
        try:
            self._strike(killer, dice)
        finally:
            killer.thaw()
        self._drain()
        told = [entry for number in range(CLIENTS) for entry in clients.read(self._history(number))]
        return self._outcome(killer.blows, told, time.monotonic() - began)

    def _strike(self, killer: Killer, dice: random.Random) -> None:
        while len(killer.blows) < self.kills:
            self._keep_nodes()
            time.sleep(dice.uniform(0, 2 * self.every))
            killer.strike()

    def _keep_nodes(self) -> None:
        """Start another node for each that has ended."""
        installed = self.installed
        installed.nodes = [node for node in installed.nodes if node.poll() is None]
        while len(installed.nodes) < NODES:
            installed.start_node(log=f"node-{self.nodes}.log")
            self.nodes += 1

    def _start_clients(self) -> None:
        home = self.installed.settings.home
        files = pictures.members(size=(12, 12), splits={"train": _PICTURES, "validation": 2})
        spec = home / "job.toml"
        data = pictures.write(home / "pictures", files)
        spec.write_text(_SPEC.format(data=data, epochs=_EPOCHS, between=_BETWEEN), encoding="utf-8")
        for number in range(CLIENTS):
            share = self.size // CLIENTS + (number < self.size % CLIENTS)
            words = {"name": f"c{number}", "spec": spec, "history": self._history(number), "jobs": share}
            words |= {"seed": f"{self.seed}-{number}", "pause": 0.9 * self.every * self.kills * CLIENTS / self.size}
            self._clients.append(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "tests.faults.clients"),
                        *(str(word) for name, value in words.items() for word in (f"--{name}", value)),
                    ],
                    env={**self.installed.environment, "ORCH_USER": f"c{number}"},
                    cwd=running.ROOT,
                    stderr=(home / f"client-{number}.log").open("ab"),
                )
            )

    def _history(self, number: int) -> Path:
        return self.installed.settings.home / f"history-{number}.jsonl"

    def _clients_work(self) -> bool:
        return any(client.poll() is None for client in self._clients)

    def _unfinished(self) -> list[jobs.Job]:
        unfinished = jobs.JobFilter(states=tuple(set(states.JobState) - states.FINAL))
        try:
            return self.installed.store.jobs(unfinished)
        except errors.Unavailable:
            return self._unfinished()

    def _drain(self) -> None:
        """Start everything that died once more, and wait until every job is final."""
        seen: Any = None
        since = time.monotonic()
        while (left := self._unfinished()) or self._clients_work():
            self._keep_nodes()
            now = [(job.id, job.state, job.attempt, job.progress.done) for job in left]
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > _PATIENCE:
                return  # the history checker names them
            for job in left:
                if job.state is states.JobState.PAUSED and not self._clients_work():
                    with contextlib.suppress(errors.OrchError):
                        self.installed.store.resume(job.id, actor="soak")
            time.sleep(0.1)

    def _outcome(self, blows: list[Blow], told: list[clients.Told], seconds: float) -> Outcome:
        store, settings = self.installed.store, self.installed.settings
        ended = store.jobs(jobs.JobFilter())
        promised = {entry.job for entry in told if entry.asked == "submit" and entry.code == 0 and entry.job}
        found = audit.audit(settings, store, promised=promised)
        rows = [store.history(job.id) for job in ended]
        taken_back, recovered = recoveries(rows, blows, {job.id: job.identity.pid for job in store.workers()})
        return Outcome(
            database="postgresql" if self.database else "sqlite",
            seed=self.seed,
            seconds=seconds,
            blows=blows,
            told=told,
            faults=[*check(told, ended), *(f"{one.kind} {one.job}: {one.sentence}" for one in found)],
            states=Counter(str(job.state) for job in ended),
            attempts=Counter(str(attempt.outcome) for row in rows for attempt in row.attempts),
            nodes=self.nodes,
            taken_back=taken_back,
            recovered=recovered,
            repeated=[(again, limit) for row in rows for _, again, limit in history.repeats(row)],
        )


def check(told: Sequence[clients.Told], ended: Sequence[jobs.Job]) -> Iterator[str]:
    """Compare what clients were told with what became of the jobs, and yield what does not agree."""
    found = {job.id: job for job in ended}
    keys: dict[str, str] = {}
    for entry in told:
        if entry.asked == "submit" and entry.code == 0:
            if entry.job not in found:
                yield f"{entry.job} was promised to {entry.key}, and is not there"
            elif keys.setdefault(str(entry.key), entry.job) != entry.job:
                yield f"{entry.key} was promised {keys[str(entry.key)]}, then {entry.job}"
    yield from (f"{job.id} has not ended: {job.state}" for job in ended if not job.final)
    strange = {job.idempotency_key for job in ended} - {entry.key for entry in told if entry.asked == "submit"}
    yield from (f"nobody has asked for the job of {key}" for key in sorted(map(str, strange)))
    for job_id, job in found.items():
        yield from _of_one([entry for entry in told if entry.job == job_id], job)


def _of_one(told: Sequence[clients.Told], job: jobs.Job) -> Iterator[str]:
    """Yield what was said of one job and is not true in the end; a retry that was tried makes an end uncertain."""
    retried = max((entry.at for entry in told if entry.asked == "retry" and entry.code in {0, None}), default=0.0)
    for entry in told:
        last_word = entry.code == 0 and entry.at > retried
        if entry.code == 0 and entry.state == "succeeded" and job.state is not states.JobState.SUCCEEDED:
            yield f"{job.id} was said to have succeeded, and is {job.state}"
        if last_word and entry.asked == "cancel" and entry.state == "cancelled" != job.state:
            yield f"{job.id} was said to be cancelled, and is {job.state}"
        if last_word and entry.asked == "cancel" and job.state not in {"cancelled", "succeeded"}:
            yield f"{job.id} was to be cancelled, and is {job.state}"
        if last_word and entry.asked == "status" and entry.state in {"failed", "cancelled"} - {job.state}:
            yield f"{job.id} was said to be {entry.state}, and is {job.state}"


def recoveries(
    rows: Sequence[history.History], blows: Sequence[Blow], nodes: dict[str, int]
) -> tuple[list[float], list[float]]:
    """Return the seconds from each blow that cost an attempt to its end, and to the next claim without a backoff."""
    taken_back, recovered = [], []
    deadly = [blow for blow in blows if blow.how in {"KILL", "TERM"} and blow.role in {"training", "slot", "node"}]
    for row in rows:
        for attempt, following in itertools.zip_longest(row.attempts, row.attempts[1:]):
            if attempt.reason is not states.Reason.LOST or attempt.ended_at is None:
                continue
            folder = f"{row.job.id}/attempt-{attempt.attempt:04d}"
            span = (attempt.started_at.timestamp(), attempt.ended_at.timestamp())
            hits = [
                blow.at
                for blow in deadly
                if span[0] <= blow.at <= span[1]
                and (blow.folder.endswith(folder) if blow.folder else blow.node == nodes.get(attempt.worker))
            ]
            if hits:
                taken_back.append(span[1] - min(hits))
            if hits and following is not None and _at_once(row, attempt):
                recovered.append(following.started_at.timestamp() - min(hits))
    return taken_back, recovered


def _at_once(row: history.History, attempt: jobs.Attempt) -> bool:
    """Whether the retry of a lost attempt had no backoff: it was the first without progress."""
    return any(event.attempt == attempt.attempt and "retry 1 of" in (event.detail or "") for event in row.events)


def report(outcome: Outcome, command: str) -> str:
    """Return the report in Markdown."""
    submits = [entry for entry in outcome.told if entry.asked == "submit"]
    promised = {entry.job for entry in submits if entry.code == 0}
    killed = sum(entry.code is None for entry in outcome.told)
    blows = Counter((blow.role, blow.how) for blow in outcome.blows)
    lines = [
        f"# Soak on {'PostgreSQL' if outcome.database == 'postgresql' else 'SQLite'}",
        "",
        f"Made by `{command}`: real nodes, broker, command lines and training processes, struck at random.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| jobs promised | {len(promised)} |",
        f"| jobs lost; completed twice | {_count(outcome, 'not there')}; {_count(outcome, 'times')} |",
        f"| ends of jobs | {_counted(outcome.states)} |",
        f"| blows; commands killed in the middle | {len(outcome.blows)}; {killed} of {len(outcome.told)} |",
        f"| nodes started | {outcome.nodes} |",
        f"| attempts | {sum(outcome.attempts.values())}: {_counted(outcome.attempts)} |",
        f"| from a kill to the end of its attempt, seconds | {_percentiles(outcome.taken_back)} |",
        f"| from a kill to the next claim, where no backoff is due | {_percentiles(outcome.recovered)} |",
        f"| steps repeated by attempts that went on | {_repeats(outcome.repeated)} |",
        f"| findings of the oracle and the history checker | {len(outcome.faults)} |",
        f"| seed | {outcome.seed} |",
        f"| seconds | {outcome.seconds:.0f} |",
        "",
        "| struck | how | times |",
        "|---|---|---|",
        *(f"| {role} | {how} | {times} |" for (role, how), times in sorted(blows.items())),
        "",
        *(f"- {fault}" for fault in outcome.faults),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _count(outcome: Outcome, word: str) -> int:
    return sum(word in fault for fault in outcome.faults)


def _counted(what: Counter[str]) -> str:
    return ", ".join(f"{times} {name}" for name, times in what.most_common())


def _percentiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return f"p50 {p50:.2f}, p99 {p99:.2f}, most {ordered[-1]:.2f} ({len(ordered)} times)"


def _repeats(repeated: Sequence[tuple[int, int]]) -> str:
    over = sum(steps > limit for steps, limit in repeated)
    most = max((steps for steps, _ in repeated), default=0)
    return f"{len(repeated)} attempts, at most {most} steps, {over} over the limit of {_BETWEEN} (0 after a drain)"


def soak(*, jobs: int, kills: int, seed: int, database: str, every: float, folder: Path) -> Outcome:
    """Run a soak in `folder`, whose path must be short."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.running()) if database == "postgresql" else None
        settings: dict[str, Any] = {"slots_per_device": 2, "data_roots": (folder,), "log_max_bytes": 65536}
        if server is not None:
            settings["database_url"] = server.url
        home = folder / "home"
        home.mkdir(mode=0o700)
        if server is not None:
            from orchestrator.store import migrations  # noqa: PLC0415 - for a server only

            migrations.upgrade(server.url)
        installed = stack.enter_context(running.installation(home, **settings))
        return Soak(installed, jobs, kills, seed, server, every).run()


def main() -> int:
    """Run one soak and print its report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - no secret
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--every", type=float, default=0.7, help="seconds between two blows, on average")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the installation for a look")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    outcome = soak(
        jobs=given.jobs, kills=given.kills, seed=given.seed, database=given.database, every=given.every, folder=folder
    )
    words = f"--jobs {given.jobs} --kills {given.kills} --seed {given.seed} --database {given.database}"
    text = report(outcome, f"python -m tests.faults.soak {words}")
    sys.stdout.write(text)
    if given.report:
        given.report.write_text(text, encoding="utf-8")
    if given.keep:
        sys.stdout.write(f"kept: {folder}\n")
    else:
        shutil.rmtree(folder)
    return int(bool(outcome.faults))


if __name__ == "__main__":
    sys.exit(main())
