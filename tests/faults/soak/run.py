"""One soak: nodes, a broker, clients and tiny jobs under random blows, until every job has ended; then the verdict."""

import contextlib
import dataclasses
import io
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from orchestrator import errors
from orchestrator.cli import jobpipe
from orchestrator.core import gangs, history, jobs, states
from orchestrator.core.findings import Finding
from orchestrator.service import holds, query
from orchestrator.store import migrations
from tests.faults.soak import clients, testimony
from tests.faults.soak.killer import Blow, Killer
from tests.faults.soak.report import Outcome, Plan, recoveries
from tests.support import oracle, pictures, postgres, running
from tests.support.waiting import patiently

NODES = 2
CLIENTS = 2
SLOTS = 2  #: of each node
_AT_WORK = NODES * SLOTS  #: jobs

#: Seconds without any change of a job's state after which the queue is said to hang: the longest backoff, and more.
_PATIENCE = 180.0

_PICTURES = 6  #: a class, two at a step
_SPEC = """
data = "{data}"
network = "densenet_bc_40_12"
blocks = [1]
growth_rate = 2
image_size = 8
crop_scale = [0.5, 1.0]
batch_size = 2
epochs = 3
checkpoint_steps = 3
loader_workers = 0
lr = 0.01
"""

#: Seconds between two looks at what processes hold, one of which may just be ending or frozen, and how many follow the
#: first.
_LOOK_SECONDS, _LOOKS = 0.4, 15
_DRAIN_SECONDS = 0.5  #: between two looks at what is left

_RUNNING = jobs.JobFilter(states=(states.JobState.RUNNING,))
_UNFINISHED = jobs.JobFilter(states=tuple(set(states.JobState) - states.FINAL))


def soak(plan: Plan, *, folder: Path) -> Outcome:
    """Run a soak in `folder`, whose path must be short, and which other users must be able to enter."""
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {
            "slots_per_device": SLOTS,
            "heartbeat": 0.5,
            "sweep": 1,
            "stay": 0.2,
            "data_roots": (folder,),
            "log_max_bytes": 65536,
        }
        server = stack.enter_context(postgres.running()) if plan.database == "postgresql" else None
        if server is not None:
            settings["database_url"] = server.url
            patiently(migrations.upgrade, server.url)
        home = folder / "home"
        home.mkdir(mode=0o700)
        try:
            with running.installation(home, **settings) as installed:
                outcome = Soak(installed, plan, server).run()
        except AssertionError as left:  # of the installation's end
            outcome = dataclasses.replace(outcome, untrue=[*outcome.untrue, str(left)])
    return outcome


@dataclasses.dataclass
class Soak:
    """One run."""

    installed: running.Installation
    plan: Plan
    server: postgres.Server | None
    nodes: int = 0  #: that were started
    misheld: set[Finding] = dataclasses.field(default_factory=set)  #: devices, while jobs ran

    def run(self) -> Outcome:
        """Go through with it."""
        began = time.monotonic()
        dice = random.Random(self.plan.seed)  # noqa: S311 - to be repeated, not to be secret
        killer = Killer(self.installed, dice, self.server.restart if self.server else None)
        self._keep_nodes()
        people = self._clients()
        try:
            self._strike(killer, dice)
        finally:
            killer.thaw()
        self._drain(people)
        dead = [
            f"client {number} ended with code {person.wait()}" for number, person in enumerate(people) if person.wait()
        ]
        return self._outcome(killer.blows, dead, time.monotonic() - began)

    def _strike(self, killer: Killer, dice: random.Random) -> None:
        """Deal the blows as jobs come to their ends, as many a job on a slow machine as on a fast one."""
        share = self.plan.kills / self.plan.jobs
        moved, ended = time.monotonic(), 0
        while len(killer.blows) < self.plan.kills and time.monotonic() - moved < _PATIENCE:
            self._keep_nodes()
            with contextlib.suppress(errors.Unavailable):
                counted = self.installed.store.counts().states
                if (now := sum(counted[state] for state in states.FINAL)) != ended:
                    moved, ended = time.monotonic(), now
            if len(killer.blows) < share * (ended + _AT_WORK):
                killer.strike()
                with contextlib.suppress(errors.Unavailable):
                    self._look_at_devices()
            time.sleep(dice.uniform(0, 2 * self.plan.every))

    def _look_at_devices(self) -> None:
        """Keep what is wrong with the devices that are held, at every look: a process may just be ending."""
        found = self._held_wrongly()
        for _ in range(_LOOKS):
            if not found:
                return
            time.sleep(_LOOK_SECONDS)
            found &= self._held_wrongly()
        self.misheld |= found

    def _held_wrongly(self) -> set[Finding]:
        running = [self.installed.store.history(job.id) for job in self.installed.store.jobs(_RUNNING)]
        return set(holds.check(self.installed.settings, running))

    def _keep_nodes(self) -> None:
        """Start another node for each that has ended, as a service manager would."""
        installed = self.installed
        installed.nodes = [node for node in installed.nodes if node.poll() is None]
        while len(installed.nodes) < NODES:
            installed.start_node(log=f"node-{self.nodes}.log")
            self.nodes += 1

    def _clients(self) -> list["subprocess.Popen[bytes]"]:
        """Start the people."""
        home, plan = self.installed.settings.home, self.plan
        files = pictures.members(size=(12, 12), splits={"train": _PICTURES, "validation": 2})
        spec = home / "job.toml"
        spec.write_text(_SPEC.format(data=pictures.write(home / "pictures", files)), encoding="utf-8")
        started = []
        for number in range(CLIENTS):
            share = plan.jobs // CLIENTS + (number < plan.jobs % CLIENTS)
            words = {"name": f"c{number}", "spec": spec, "history": self._history(number), "jobs": share}
            words |= {"seed": f"{plan.seed}-{number}"}
            said = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
            with (home / f"client-{number}.log").open("ab") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.faults.soak.clients", *said],
                        env={**self.installed.environment, "ORCH_USER": f"c{number}"},
                        cwd=running.ROOT,
                        stdin=subprocess.DEVNULL,
                        stderr=log,
                    )
                )
        return started

    def _history(self, number: int) -> Path:
        return self.installed.settings.home / f"history-{number}.jsonl"

    def _drain(self, people: list["subprocess.Popen[bytes]"]) -> None:
        """Start everything that died once more, and wait until every job is final."""
        seen: Any = None
        since = time.monotonic()
        while time.monotonic() - since < _PATIENCE:  # the history checker names what has not ended
            self._keep_nodes()
            at_work = any(person.poll() is None for person in people)
            with contextlib.suppress(errors.Unavailable):
                left = self.installed.store.jobs(_UNFINISHED)
                if not left and not at_work and self._all_are_up():
                    return
                now = [(job.id, job.state, job.attempt, job.progress.done) for job in left]
                if now != seen:
                    seen, since = now, time.monotonic()
                if not at_work:
                    self._resume(left)
            time.sleep(_DRAIN_SECONDS)

    def _all_are_up(self) -> bool:
        """Whether each node has come through its start, in which it clears away what dead ones have left."""
        up = {worker.identity.pid for worker in self.installed.store.workers() if worker.beat}
        return all(node.pid in up for node in self.installed.nodes)

    def _resume(self, left: list[jobs.Job]) -> None:
        """Let go on what its client paused, and was killed before it could resume it."""
        for job in left:
            if job.state is states.JobState.PAUSED or job.wish is states.Wish.PAUSE:
                with contextlib.suppress(errors.IllegalMove):
                    self.installed.store.resume(job.id, actor="soak")

    def _outcome(self, blows: list[Blow], dead: list[str], seconds: float) -> Outcome:
        store, settings = self.installed.store, self.installed.settings
        told = [entry for number in range(CLIENTS) for entry in clients.read(self._history(number))]
        promised = {entry.job for entry in told if entry.asked == "submit" and entry.code == 0 and entry.job}
        found = oracle.lasting(settings, store, promised=promised)
        rows = [patiently(store.history, job.id) for job in patiently(store.jobs, jobs.JobFilter())]
        untrue = testimony.check(told, rows, {row.job.id: patiently(self._results, row.job) for row in rows})
        pids = {worker.id: worker.identity.pid for worker in patiently(store.workers)}
        taken_back, recovered = recoveries(rows, blows, pids)
        return Outcome(
            plan=self.plan,
            seconds=seconds,
            blows=blows,
            told=told,
            untrue=[*dead, *untrue],
            found=[*found, *self.misheld],
            states=Counter(str(row.job.state) for row in rows),
            attempts=Counter(str(attempt.outcome) for row in rows for attempt in row.attempts),
            gangs=sum(gangs.counted(attempt.device) > 1 for row in rows for attempt in row.attempts),
            nodes=self.nodes,
            taken_back=taken_back,
            recovered=recovered,
            repeated=[(again, limit) for row in rows for _, again, limit in history.repeats(row)],
        )

    def _results(self, job: jobs.Job) -> tuple[str, ...]:
        """Return the results as `status` prints them now."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            jobpipe.show(query.report(self.installed.store, job.id), self.installed.settings)
        return clients.results(said.getvalue().splitlines())
