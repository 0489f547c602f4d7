"""A case's installation: a home whose node, fork server and commands are forked from one warm process.

A node here is `worker.node` as it is, but for its children: its slots are threads of it, and the fork server is the
home's, which starts again whatever died.
"""

import contextlib
import gc
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from pydantic import SecretStr

from orchestrator import config, failpoints
from orchestrator.core import clock, jobs, retry, specs, states, telling
from orchestrator.service import bell, context, provenance
from orchestrator.service import submit as submitting
from orchestrator.store import engine
from tests.faults import cases, lane, slots
from worker import forkserver, node, parts, recorder, supervisor

#: As fast as two busy cores keep up with.
TIMINGS: dict[str, Any] = {"heartbeat": 0.5, "lease": 2.5, "sweep": 0.5, "drain": 10, "cancel_grace": 1}
DEADLINE = 240.0
EPOCHS = 2

#: Times that a person types a command that dies or fails.
_TRIES = 5


class Home:
    """One case's installation. `promised` is how each job that was submitted ends; None: it is deleted."""

    def __init__(self, shared: lane.Lane, case: cases.Case | None, *, database: bool = True, **settings: Any) -> None:
        self.shared = shared
        self.case = case
        self.path = shared.folder / f"home-{time.monotonic_ns()}"  # short: sockets lie in it
        self.points = self.path / "failpoints"
        self.points.mkdir(parents=True)
        url = shared.make_database(case.database if case else cases.SQLITE, self.path) if database else None
        self.settings = config.Settings(
            **{
                "home": self.path,
                "lock_dir": self.path / "locks",
                "broker_url": SecretStr(shared.broker_url),
                "broker_prefix": f"{self.path.name}:",
                "database_url": SecretStr(url) if url else None,
                "weights_url": shared.url,
                "data_roots": (shared.folder,),
                "allow_private_hosts": True,
                "devices": "cpu",
                "threads": 1,
                "download_slots": 1,
                **TIMINGS,
                **settings,
            }
        )
        self._clock = self.path / "clock"
        self.flags: tuple[str, ...] = ()
        self.promised: dict[str, str | None] = {}
        self._pids: dict[str, int] = {}
        self._numbers = itertools.count()
        self._ended: list[str] = []  #: how processes ended, for the report of a failure
        self._stdin = os.pipe()
        self._deadline = time.monotonic() + DEADLINE

    def arm(self) -> None:
        """Arm the places of the case."""
        if self.case is not None:
            for place in self.case.places:
                self.set(place, *self.case.lines)

    def set(self, place: str, *actions: str) -> None:
        """Arm a place with an action for each that comes by."""
        (self.points / place).write_text("\n".join(actions), encoding="ascii")

    def disarm(self, place: str) -> None:
        """Let nothing more happen at a place; somebody may be about to act on one line, and to put back the rest."""
        armed = self.points / place
        while not armed.with_name(f"{place}.fired").exists():
            with contextlib.suppress(FileNotFoundError):
                armed.unlink()
                return

    def set_clock(self, hours: float) -> None:
        """Set the clock of its processes: all that are started behind the first call of this see it."""
        draft = self._clock.with_suffix(".draft")
        draft.write_text(str(hours), encoding="ascii")
        draft.rename(self._clock)

    def held(self, place: str) -> None:
        """Wait until somebody is held at a place that is armed with `hold`."""
        self.until((self.points / f"{place}.fired").exists)

    def let_go(self, place: str) -> None:
        (self.points / f"{place}.go").touch()

    def left(self) -> dict[str, list[str]]:
        """Return by place the actions of the case for which nobody has come by yet."""
        found = {}
        for place in self.case.places if self.case else ():
            with contextlib.suppress(FileNotFoundError):
                found[place] = (self.points / place).read_text(encoding="ascii").splitlines()
        return found

    def reached(self) -> bool:
        """Whether somebody has come by each of the case's places, once they are armed."""
        return self.case is None or all(len(left) < len(self.case.lines) for left in self.left().values())

    def call(self, work: Callable[[config.Settings], Any]) -> Any:
        """Do `work` as a person's command: again where it dies or fails."""
        answer = self.path / "answer.json"

        def command() -> None:
            answer.write_text(json.dumps(work(config.load())), encoding="ascii")

        tries = _TRIES * len(self.case.places) if self.case else _TRIES
        for _ in range(tries):
            answer.unlink(missing_ok=True)
            _, status = os.waitpid(self._fork("command", command), 0)
            self._ended.append(f"command {status}")
            if status == 0:
                return json.loads(answer.read_text(encoding="ascii"))
        raise AssertionError(f"the command failed {tries} times")

    def submit(
        self,
        data: str | None = None,
        *,
        notify: telling.Telling | None = None,
        folder: Path | None = None,
        priority: int = 0,
        **fields: Any,
    ) -> str:
        # 4 pictures a class in batches of four: a checkpoint at every second step, so that retention has work.
        usual: dict[str, Any] = {
            "data": data or f"{self.shared.url}/tiny.zip",
            "growth_rate": 2,
            "blocks": (1,),
            "image_size": 8,
            "epochs": EPOCHS,
            "batch_size": 4,
            "checkpoint_steps": 1,
            "loader_workers": 0,
            "retries": self._retries(),
        }
        spec = specs.JobSpec(**usual | fields)
        key = f"key-{next(self._numbers)}"

        def submit(settings: config.Settings) -> str:
            with (
                provenance.asked(settings, folder or self.path) as question,
                bell.prepared(settings) as ring,
                context.opened(settings) as opened,
            ):
                known = provenance.known({}, question)
                who: dict[str, Any] = {"user": "walker", "priority": priority, "idempotency_key": key}
                new = jobs.NewJob(spec=spec, notify=notify, provenance=known, **who)
                return submitting.submit(opened.store, new, ring=ring).job.id

        job_id = str(self.call(submit))
        self.promised[job_id] = "succeeded"
        return job_id

    def _retries(self) -> dict[states.Reason, int]:
        """Return as many retries for each of the case's places as a job has by itself for the one."""
        places = len(self.case.places) if self.case else 1
        most = retry.ABSOLUTE_LIMIT
        return {reason: min(limit * places, most) for reason, limit in retry.LIMITS.items()} if places > 1 else {}

    def keep(self) -> None:
        """Start what does not run: as a service manager would."""
        for name, work in (("fork", self._fork_server), ("node", self._node)):
            pid = self._pids.get(name)
            if pid is not None:
                found, status = os.waitpid(pid, os.WNOHANG)
                if not found:
                    continue
                self._ended.append(f"{name} {status}")
            self._pids[name] = self._fork(name, work)

    def mend(self) -> None:
        """Start again what has died, where a node is to run."""
        if "node" in self._pids:
            self.keep()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Keep all running until the condition is true, and return its value."""
        while not (found := condition()):
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"not within {DEADLINE:g} s")
            self.keep()
            time.sleep(0.05)
        return found

    def beat(self) -> int:
        """Return the beat of the one job's lease: with each, its supervisor hears what is wished."""
        return int(self.rows("SELECT beat FROM jobs")[0][0])

    def ends(self, job_id: str) -> str:
        """Wait for the job's end and return its state."""
        final = "SELECT state FROM jobs WHERE id = ? AND state IN ('succeeded', 'failed', 'cancelled')"
        return str(self.until(lambda: self.rows(final, job_id))[0][0])

    def leave(self) -> None:
        """Drain the node and end the fork server; behind a node that died over it, another one clears up."""
        while "node" in self._pids and self._end("node"):
            self.keep()
            self.until(lambda: self.rows("SELECT 1 FROM workers WHERE pid = ?", self._pids["node"]))
        self._end("fork")

    def _end(self, name: str) -> int:
        pid = self._pids.pop(name, None)
        if pid is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        self._ended.append(f"{name} {status}")
        return status

    def kill(self) -> None:
        """End what runs, the hard way."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()

    def remove(self) -> None:
        """End what is left of it, and remove it."""
        self.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for end in self._stdin:
            os.close(end)
        shutil.rmtree(self.path, ignore_errors=True)
        if not self.settings.embedded_database:
            self.shared.drop_database(self.settings.database)

    def processes(self) -> list[int]:
        """Return the processes that work in it, known by their logs: forked ones have the lane's environment."""
        return [pid for pid in psutil.pids() if _writes_below(pid, str(self.path))]

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return what the database holds."""
        # Closed again at once: SQLite's locks must not be inherited by a process that is forked.
        if not self.settings.embedded_database:
            with psycopg.connect(self.settings.database) as server:
                return server.execute(query.replace("?", "%s").encode(), values).fetchall()
        if not (self.path / "orch.db").exists():
            return []
        with contextlib.closing(sqlite3.connect(self.path / "orch.db", timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def log(self, name: str) -> str:
        """Return what the processes of a kind have said."""
        file = self.path / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def told(self) -> str:
        """Return what its processes said last, how they ended, and where the jobs stand."""
        with contextlib.suppress(sqlite3.Error, psycopg.Error):
            self._ended.append(str(self.rows("SELECT id, state, stage, reason, error FROM jobs")))
        logs = [*sorted(self.path.glob("*.log")), *sorted(self.path.glob("artifacts/*/*/log.txt"))]
        said = [f"--- {log.relative_to(self.path)}\n{log.read_text(errors='replace')[-4000:]}" for log in logs]
        return "\n".join([*said, *self._ended])

    def _fork(self, name: str, work: Callable[[], Any]) -> int:
        """Run `work` in a process of its own that obeys the failpoints; its log is `name`.log."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            lane.die_with_parent()
            os.setpgid(0, 0)
            with (self.path / f"{name}.log").open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.dup2(self._stdin[0], 0)
            own = config.child_environment(self.settings, ORCH_TEST_FAILPOINTS=str(self.points))
            os.environ.update(own)  # noqa: TID251 - a forked process can be given no other environment
            failpoints.folder.cache_clear()
            if self._clock.exists():
                _obey_clock(self._clock)
            random.seed()
            code = int(work() or 0)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _node(self) -> int:
        vars(parts)["Child"] = slots.Slot
        retry.FIRST_BACKOFF = timedelta(seconds=0.05)
        recorder._RETRY_SECONDS = 0.1
        supervisor._TICK_SECONDS = 0.1
        node._TICK_SECONDS = 0.1
        node._DATABASE_RETRY_SECONDS = 0.1
        node._FILES_SECONDS = 0.5
        sys.argv = ["worker", *self.flags]
        return node.main()

    def _fork_server(self) -> int:
        sys.argv = ["forkserver", "--socket", str(self.path / "fork.sock")]
        gc.collect = lambda *_: 0  # the lane has collected and frozen
        from worker.training import ranks  # noqa: PLC0415 - torch, which no test of the walk needs by itself

        ranks._END_SECONDS = 1.0
        return forkserver.main()


def _obey_clock(file: Path) -> None:
    """Let this process and those that it forks see a clock that is as many hours ahead as the file says."""

    def now(*_: object) -> datetime:
        return datetime.now(UTC) + timedelta(hours=float(file.read_text(encoding="ascii")))

    vars(engine)["shared_time"] = now
    setattr(clock.SystemClock, "now", now)  # noqa: B010 - to mypy a method is no variable


def _writes_below(pid: int, path: str) -> bool:
    try:
        return pid != os.getpid() and os.readlink(f"/proc/{pid}/fd/1").startswith(f"{path}/")  # noqa: PTH115 - many
    except OSError:
        return False
