"""What a case of the walk stands on: a home whose node, fork server and commands are forked from one warm process.

A node here is `worker.node` as it is, but for its children: its slots are threads of it, and the fork server is the
home's, which starts again whatever died.
"""

import contextlib
import functools
import gc
import http.server
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from orchestrator import config, failpoints
from orchestrator.core import jobs, retry, specs
from orchestrator.queue import embedded
from orchestrator.service import bell, context
from orchestrator.service import submit as submitting
from orchestrator.store import sql
from tests.support import pictures
from worker import app, forkserver, node, supervisor

#: As fast as two busy cores keep up with.
TIMINGS: dict[str, Any] = {"heartbeat": 0.3, "lease": 1.5, "sweep": 0.1, "drain": 10, "cancel_grace": 1}
DEADLINE = 40.0
EPOCHS = 2


class Slot:
    """Stands for `children.Child`: a slot as threads of the node; no fork server, which is the lane's."""

    def __init__(self, name: str, module: str, *, first_line: str = "", **_: object) -> None:
        self.name = name
        self._module = module
        self._plan = first_line
        self._draining = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._module != "worker.app":
            return
        settings = config.load()
        plan = app.Plan.model_validate_json(self._plan).model_copy(update={"fork_server": settings.home / "fork.sock"})
        slot = app.build(plan, settings, self._draining)
        self._thread = threading.Thread(target=slot.look_every, args=(settings.sweep,), daemon=True)
        self._thread.start()

    def keep(self) -> None:
        """Nothing: a thread that dies is a defect, and the case runs into its deadline."""

    def ask_to_stop(self) -> None:
        self._draining.set()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self, deadline: float) -> bool:
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self.running


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves the data sets; what is named `slow` comes in drops."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if "slow" not in self.path:
            shutil.copyfileobj(source, outputfile)
            return
        with contextlib.suppress(OSError):
            while piece := source.read(64):
                outputfile.write(piece)
                time.sleep(0.05)


class Lane:
    """What the cases share: the data set, its server, the broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        gc.collect()
        gc.freeze()
        files = pictures.members(size=(16, 16), splits={"train": 4, "validation": 2})
        (folder / "www").mkdir(parents=True)
        self.archive = folder / "www" / "tiny.zip"
        with zipfile.ZipFile(self.archive, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        shutil.copy(self.archive, self.archive.with_name("slow.zip"))
        self.migrated = folder / "migrated"
        sql.open_store(config.Settings(home=self.migrated)).close()
        self._broker = config.Settings(home=folder / "broker-home")
        embedded.ensure(self._broker)
        self.broker_url = f"redis+socket://{embedded.socket(self._broker)}"
        listener = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Files, directory=str(self.archive.parent))
        )
        self.url = f"http://127.0.0.1:{listener.server_address[1]}"
        self._server = os.fork()
        if self._server == 0:
            listener.serve_forever()
        listener.server_close()

    def close(self) -> None:
        os.kill(self._server, signal.SIGKILL)
        os.waitpid(self._server, 0)
        embedded.stop(self._broker)


class Home:
    """One case's installation."""

    def __init__(self, lane: Lane, name: str, *, database: bool = True, **settings: Any) -> None:
        self.lane = lane
        self.path = lane.folder / name
        self.points = self.path / "failpoints"
        self.points.mkdir(parents=True)
        self.url = lane.url
        values = {"broker_url": SecretStr(lane.broker_url), "broker_prefix": f"{name}:", "devices": "cpu", "threads": 1}
        self.settings = config.Settings(
            **{"home": self.path, "lock_dir": self.path / "locks", "download_slots": 1, **TIMINGS, **values, **settings}
        )
        if database:
            shutil.copy(lane.migrated / "orch.db", self.path)
        self.flags: tuple[str, ...] = ()
        self.pids: dict[str, int] = {}
        self._numbers = itertools.count()
        self.ended: list[str] = []  #: how processes ended, for the report of a failure
        self._stdin = os.pipe()[0]
        self._deadline = time.monotonic() + DEADLINE

    def arm(self, place: str, action: str) -> None:
        (self.points / place).write_text(action)

    def fired(self, place: str) -> bool:
        return (self.points / f"{place}.fired").exists()

    def fork(self, name: str, work: Callable[[], Any]) -> int:
        """Run `work` in a process of its own that obeys the failpoints; its log is `name`.log."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setpgid(0, 0)
            with (self.path / f"{name}.log").open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.dup2(self._stdin, 0)
            own = config.child_environment(self.settings, ORCH_TEST_FAILPOINTS=str(self.points))
            os.environ.update(own)  # noqa: TID251 - a forked process can be given no other environment
            failpoints.folder.cache_clear()
            random.seed()
            code = int(work() or 0)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def call(self, work: Callable[[config.Settings], Any]) -> Any:
        """Do `work` as a person's command: again where it dies or fails."""
        answer = self.path / "answer.json"

        def command() -> None:
            answer.write_text(json.dumps(work(config.load())))

        for _ in range(3):
            answer.unlink(missing_ok=True)
            _, status = os.waitpid(self.fork("command", command), 0)
            self.ended.append(f"command {status}")
            if status == 0:
                return json.loads(answer.read_text())
        raise AssertionError(f"the command failed three times: {self.log('command')}")

    def submit(self, data: str | None = None, **fields: Any) -> str:
        # 4 pictures a class in batches of two: a checkpoint at every second step, so that retention has work.
        spec = specs.JobSpec(
            data=data or f"{self.url}/tiny.zip",
            growth_rate=2,
            blocks=(1,),
            image_size=8,
            epochs=EPOCHS,
            batch_size=4,
            checkpoint_steps=1,
            loader_workers=0,
            **fields,
        )
        key = f"key-{next(self._numbers)}-{time.monotonic_ns()}"

        def submit(settings: config.Settings) -> str:
            with bell.prepared(settings) as ring, context.opened(settings) as opened:
                new = jobs.NewJob(spec=spec, user="walker", idempotency_key=key)
                return submitting.submit(opened.store, new, ring=ring).job.id

        return str(self.call(submit))

    def keep(self) -> None:
        """Start what does not run: as a service manager would."""
        for name, work in (("fork", self._fork_server), ("node", self._node)):
            pid = self.pids.get(name)
            if pid is not None:
                found, status = os.waitpid(pid, os.WNOHANG)
                if not found:
                    continue
                self.ended.append(f"{name} {status}")
            self.pids[name] = self.fork(name, work)

    def until(self, condition: Callable[[], Any]) -> Any:
        while not (found := condition()):
            if time.monotonic() > self._deadline:
                raise TimeoutError(str(self.rows("SELECT id, state, stage, reason, error FROM jobs")))
            self.keep()
            time.sleep(0.01)
        return found

    def ends(self, job_id: str) -> str:
        """Wait for the job's end and return its state."""
        final = "SELECT state FROM jobs WHERE id = ? AND state IN ('succeeded', 'failed', 'cancelled')"
        return str(self.until(lambda: self.rows(final, job_id))[0][0])

    def leave(self) -> None:
        """Drain the node and end the fork server."""
        for name in ("node", "fork"):
            pid = self.pids.pop(name, None)
            if pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            _, status = os.waitpid(pid, 0)
            self.ended.append(f"{name} {status}")

    def kill(self) -> None:
        """End what runs, the hard way."""
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids.clear()

    def rows(self, query: str, *values: object) -> list[Any]:
        # Closed again at once: SQLite's locks must not be inherited by a process that is forked.
        if not (self.path / "orch.db").exists():
            return []
        with contextlib.closing(sqlite3.connect(self.path / "orch.db", timeout=5)) as database:
            return database.execute(query, values).fetchall()

    def log(self, name: str) -> str:
        path = self.path / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def _node(self) -> int:
        vars(node)["Child"] = Slot
        retry.FIRST_BACKOFF = timedelta(seconds=0.05)
        supervisor._TICK_SECONDS = 0.1
        node._DATABASE_RETRY_SECONDS = 0.1
        sys.argv = ["worker", *self.flags]
        return node.main()

    def _fork_server(self) -> int:
        sys.argv = ["forkserver", "--socket", str(self.path / "fork.sock")]
        gc.collect = lambda *_: 0  # the lane has collected and frozen
        return forkserver.main()


def told(shared: Lane, name: str) -> str:
    """Return what the processes of a case said last."""
    return "".join(
        f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in (shared.folder / name).glob("*.log")
    )
