"""How each failpoint is reached, and what must be true when its case is over."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from orchestrator import config, errors
from orchestrator.core import jobs, states
from orchestrator.queue import embedded
from orchestrator.service import context, control, predict, schema
from orchestrator.service import node as nodes
from orchestrator.store import sql
from tests.faults import lane
from worker import children, devices

Scenario = Callable[[lane.Lane, str, str], lane.Home]


def walk(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """Run the case, and return its home; raises AssertionError or TimeoutError where something promised is not true."""
    home = scenario_of(place)(shared, place, action)
    assert home.fired(place), "the place was never reached"
    home.leave()
    check(home)
    return home


def scenario_of(place: str) -> Scenario:
    """Return the scenario that reaches the place."""
    for prefix, scenario in SCENARIOS.items():
        if place == prefix or place.startswith(f"{prefix}."):
            return scenario
    return life


def opened(shared: lane.Lane, place: str, action: str, **options: Any) -> lane.Home:
    return lane.Home(shared, _name(place, action), **options)


def life(shared: lane.Lane, place: str, action: str, **options: Any) -> lane.Home:
    """A job's whole way: submit, download, train with checkpoints and retention, evaluate."""
    home = opened(shared, place, action, **options)
    home.flags = FLAGS.get(place.split(".", maxsplit=1)[0], ())
    home.arm(place, action)
    succeeds(home, home.submit())
    return home


def succeeds(home: lane.Home, job_id: str) -> None:
    """Wait for the end; what the disk or a spoilt loss ended for good is retried by its owner, once."""
    if home.ends(job_id) == "succeeded":
        return
    ((reason, error),) = home.rows("SELECT reason, error FROM jobs WHERE id = ?", job_id)
    assert reason in {"disk_full", "diverged"}, f"it failed with {reason}: {error}"
    home.call(lambda settings: again(settings, job_id))
    assert home.ends(job_id) == "succeeded"


def again(settings: config.Settings, job_id: str) -> str:
    with context.opened(settings) as it:
        return control.retry(settings, it.store, job_id)[0].id


def steered(settings: config.Settings, job_id: str) -> str:
    with context.opened(settings) as it:
        return control.cancel(settings, it.store, job_id).id


def deleted(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """A job is deleted with its files; a command that died on the way finds it gone, and a node removes the rest."""
    home = opened(shared, place, action)
    job_id = home.submit()
    succeeds(home, job_id)
    home.arm(place, action)

    def delete(settings: config.Settings) -> bool:
        with context.opened(settings) as it, contextlib.suppress(errors.NotFound):
            control.delete(settings, it.store, it.store.find(job_id))
        return True

    home.call(delete)
    home.until(lambda: not (home.settings.artifact_dir / job_id).exists())
    return home


def only_one(shared: lane.Lane, place: str, action: str) -> lane.Home:
    home = opened(shared, place, action)
    home.flags = ("--only-one",)
    home.arm(place, action)
    succeeds(home, home.submit())
    return home


def fresh(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The first command of all makes the database."""
    home = opened(shared, place, action, database=False)
    home.arm(place, action)
    job_id = home.submit()
    home.call(schema.check)
    succeeds(home, job_id)
    return home


def broker(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The embedded broker: started by the node, shut down by its owner."""
    home = opened(shared, place, action, broker_url=None)
    if place != "broker.shutdown":
        home.arm(place, action)
    succeeds(home, home.submit())
    home.leave()
    if place == "broker.shutdown":
        home.arm(place, action)
    home.call(embedded.stop)
    embedded.stop(home.settings)
    return home


def local(shared: lane.Lane, place: str, action: str) -> lane.Home:
    home = opened(shared, place, action)
    home.arm(place, action)
    succeeds(home, home.submit(str(shared.archive)))
    return home


def two_downloads(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """Who comes second waits for the first one's download, and reads how far it is."""
    home = opened(shared, place, action, download_slots=2)
    home.arm("archive.open", "sleep 3")
    first = home.submit()
    home.until(lambda: home.fired("archive.open"))
    home.arm(place, action)
    second = home.submit(seed=1)
    succeeds(home, first)
    succeeds(home, second)
    return home


def cancelled(shared: lane.Lane, place: str, action: str) -> lane.Home:
    home = opened(shared, place, action)
    job_id = home.submit(f"{shared.url}/slow.zip")
    partial = home.settings.data_dir / "archives"
    home.until(lambda: any(partial.glob("*.part")))
    home.arm(place, action)
    home.call(lambda settings: steered(settings, job_id))
    assert home.ends(job_id) == "cancelled"
    return home


def retried(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The data is not there at first: a person puts it there and retries."""
    home = opened(shared, place, action)
    data = home.path / "late.zip"
    job_id = home.submit(str(data))
    assert home.ends(job_id) == "failed"
    data.write_bytes(shared.archive.read_bytes())
    home.arm(place, action)
    # A command that died behind its commit finds the job queued, running or done: that is an answer as well.
    with contextlib.suppress(AssertionError):
        home.call(lambda settings: again(settings, job_id))
    assert home.ends(job_id) == "succeeded"
    return home


def damaged(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The best checkpoint is damaged before it is measured: the history says so, the next one is used."""
    home = opened(shared, place, action)
    home.arm("checkpoint.read", "sleep 0.6")
    job_id = home.submit()
    home.until(lambda: home.fired("checkpoint.read"))
    ((path,),) = home.rows("SELECT path FROM checkpoints WHERE job_id = ? AND best", job_id)
    (home.settings.artifact_dir / path).write_bytes(b"")
    home.arm(place, action)
    succeeds(home, job_id)
    (home.settings.artifact_dir / path).unlink()
    return home


def orphaned(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The node is killed while it trains; the next one takes back what it held."""
    home = opened(shared, place, action)
    home.arm("checkpoint.folder", "sleep 0.5")
    job_id = home.submit()
    home.until(lambda: home.fired("checkpoint.folder"))
    home.kill()
    home.arm(place, action)
    succeeds(home, job_id)
    home.until(lambda: home.fired(place))
    return home


def lost(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """A worker of another host falls silent."""
    home = opened(shared, place, action)
    home.arm(place, action)
    home.keep()
    home.until(lambda: home.rows("SELECT 1 FROM workers"))
    with contextlib.closing(sqlite3.connect(home.path / "orch.db", timeout=5)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(workers)") if row[1] not in {"id", "host"}]
        database.execute(
            f"INSERT INTO workers (id, host, {', '.join(columns)}) "  # noqa: S608 - names of our own columns
            f"SELECT 'far-1', 'far', {', '.join(columns)} FROM workers LIMIT 1"
        )
        database.commit()
    home.until(lambda: home.rows("SELECT 1 FROM workers WHERE id = 'far-1' AND state = 'lost'"))
    home.until(lambda: home.fired(place))
    return home


def noisy(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The first process of the job fails, and prints why: that is a log."""
    home = opened(shared, place, action)
    home.arm("cache.find", "raise")
    home.arm(place, action)
    succeeds(home, home.submit())
    return home


def untidy(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The node is killed when a checkpoint has its name and no row yet, and others have both."""
    home = opened(shared, place, action)
    home.arm("picture.open", "sleep 0.2")
    job_id = home.submit()
    home.until(lambda: len(home.rows("SELECT 1 FROM checkpoints WHERE job_id = ?", job_id)) >= 1)
    home.arm("checkpoint.folder", "sleep 0.5")
    home.until(lambda: home.fired("checkpoint.folder"))
    home.kill()
    home.arm(place, action)
    succeeds(home, job_id)
    return home


def journalled(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The database is away for a moment: what is said then goes into the journal."""
    home = opened(shared, place, action)
    home.arm("store.record_resumed.begin", "enospc")
    home.arm(place, action)
    succeeds(home, home.submit())
    return home


def wished(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """The heartbeat is slow, so that the supervisor looks at the wish in between; the training takes its time."""
    return unhurried(shared, place, action, heartbeat=2, lease=6)


def unhurried(shared: lane.Lane, place: str, action: str, **options: Any) -> lane.Home:
    """The training takes longer than a heartbeat."""
    home = opened(shared, place, action, **options)
    home.arm("checkpoint.open", "sleep 1.2")
    home.arm(place, action)
    succeeds(home, home.submit())
    return home


def looked(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """Every question that people ask, on a job that waits."""
    home = opened(shared, place, action)
    job_id = home.submit()
    home.arm(place, action)

    def look(settings: config.Settings) -> None:
        with context.opened(settings) as it:
            store = it.store
            store.find(job_id), store.get(job_id), store.jobs(jobs.JobFilter()), store.counts(), store.ahead(job_id)
            store.attempts(job_id), store.events(job_id), store.epochs(job_id), store.steps(job_id)
            store.checkpoints(job_id), store.evaluation(job_id), store.logs(job_id), store.dataset("0" * 64)
            store.workers(), store.leases(), store.history(job_id)

    home.call(look)
    home.call(lambda settings: steered(settings, job_id))
    return home


def predicted(shared: lane.Lane, place: str, action: str) -> lane.Home:
    home = opened(shared, place, action)
    job_id = home.submit()
    succeeds(home, job_id)
    home.arm(place, action)
    picture = next(home.settings.data_dir.glob("sets/*/data/validation/*/*"))

    def guess(settings: config.Settings) -> list[str]:
        with context.opened(settings) as it:
            return [found.guesses[0].label for found in predict.predict(settings, it.store, job_id, [picture])]

    assert len(home.call(guess)) == 1
    return home


def up(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """`orch up -d` and `orch down`, with a real node."""
    home = opened(shared, place, action)
    home.arm(place, action)

    def start(settings: config.Settings) -> int:
        with context.opened(settings) as it:
            return nodes.start(settings, it.store).pid

    assert home.call(start)
    home.call(lambda settings: nodes.stop(settings).pid)
    return home


def held(shared: lane.Lane, place: str, action: str) -> lane.Home:
    """A GPU's lock, and a process of the node: there is no GPU here, and slots are threads here."""
    home = opened(shared, place, action)
    home.arm(place, action)

    def lock(settings: config.Settings) -> bool:
        return devices._lock(settings.lock_dir / "GPU-1.0") is not None

    def start(settings: config.Settings) -> bool:
        child = children.Child("child", "this", environment=config.child_environment(settings))
        while not child.pid:
            child.keep()
            time.sleep(0.01)
        return child.wait(time.monotonic() + 10)

    assert home.call(lock if place == "device.lock" else start) is True
    return home


FLAGS = {"permits": ("--max-jobs", "1")}

_PEOPLE = (
    "find",
    "jobs",
    "attempts",
    "events",
    "epochs",
    "steps",
    "checkpoints",
    "evaluation",
    "logs",
    "dataset",
    "history",
)

SCENARIOS: dict[str, Scenario] = {
    "broker": broker,
    "cache.drop": cancelled,
    "cache.stamp": local,
    "cache.wait": two_downloads,
    "child.start": held,
    "device.lock": held,
    "home.mkdir": fresh,
    "journal": journalled,
    "local.read": local,
    "node.lock": only_one,
    "node.pid": only_one,
    "predict.start": predicted,
    "schema": fresh,
    **{f"store.{name}": looked for name in _PEOPLE},
    "store.get": looked,
    "store.beat": unhurried,
    "store.cancel": cancelled,
    "store.lose_worker": lost,
    "store.note": damaged,
    "artifacts.remove": deleted,
    "attempt.tidy": untidy,
    "root.look": deleted,
    "store.delete": deleted,
    "store.record_log": noisy,
    "store.retry": retried,
    "store.wish": wished,
    "store.take_back": orphaned,
    "up": up,
}


def check(home: lane.Home) -> None:
    """Say what is promised of every home, whatever happened in it."""
    for pid in [process.pid for process in _left(home)]:
        raise AssertionError(f"process {pid} is left")
    for job_id, state, run in home.rows("SELECT id, state, run FROM jobs"):
        ends = home.rows(
            "SELECT run, new_state FROM events WHERE job_id = ? AND new_state IN (?, ?, ?)", job_id, *FINAL
        )
        assert state in FINAL, f"{job_id} is {state}"
        assert [end[0] for end in ends] == list(range(1, run + 1)), f"ends by run: {ends}"
        assert ends[-1][1] == state
        attempts = [row[0] for row in home.rows("SELECT attempt FROM events WHERE job_id = ? ORDER BY seq", job_id)]
        assert attempts == sorted(attempts), f"the attempts of the events go back: {attempts}"
        if state == "succeeded":
            _check_success(home, job_id)
    cancelled = home.fired("cache.drop")  # the supervisor died, and nobody else removes the part of a cancelled job
    leftovers = [
        path for path in home.path.rglob("*") if _is_leftover(path) and not (cancelled and path.suffix == ".part")
    ]
    assert leftovers == [], f"left behind: {leftovers}"


FINAL = tuple(sorted(state.value for state in states.FINAL))


def _check_success(home: lane.Home, job_id: str) -> None:
    with contextlib.closing(sql.open_store(home.settings)) as store:
        epochs = [(row.epoch, row.split) for row in store.epochs(job_id)]
        kept = store.checkpoints(job_id)
    assert epochs == [(epoch, split) for epoch in range(1, lane.EPOCHS + 1) for split in ("train", "val")], epochs
    newest = kept[0]
    content = home.settings.artifact_dir / newest.path
    if not any(home.points.glob("store.note.*")):  # there it may be the one that was damaged
        assert hashlib.sha256(content.read_bytes()).hexdigest() == newest.sha256
    on_disk = {str(path.relative_to(home.settings.artifact_dir)) for path in _weights(home, job_id)}
    assert on_disk <= {checkpoint.path for checkpoint in kept}, f"files without a row: {on_disk}"
    assert home.rows("SELECT 1 FROM evaluations WHERE job_id = ?", job_id)


def _weights(home: lane.Home, job_id: str) -> list[Path]:
    return list((home.settings.artifact_dir / job_id).rglob("*.safetensors"))


def _is_leftover(path: Path) -> bool:
    name = path.name
    if name == ".orch-root" or "failpoints" in path.parts:
        return False
    # A node that is killed leaves its socket and its tally: names that nobody uses again.
    return name.endswith((".tmp", ".part", ".progress")) or (
        name.startswith(".") and "data" not in path.parts[:-2] and "broker" not in path.parts
    )


def _left(home: lane.Home) -> list[psutil.Process]:
    deadline = time.monotonic() + 5
    while found := [process for process in psutil.process_iter() if _is_of(process, home.path)]:
        if time.monotonic() > deadline:
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    os.kill(process.pid, signal.SIGKILL)
            return found
        time.sleep(0.02)
    return []


def end(shared: lane.Lane, place: str, action: str) -> None:
    """End what a failed case left running."""
    for process in psutil.process_iter():
        if _is_of(process, shared.folder / _name(place, action)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _name(place: str, action: str) -> str:
    return f"{place}-{action.partition(' ')[0]}"


def _is_of(process: psutil.Process, home: Path) -> bool:
    # Forked processes have the environment of the lane: they are known by their logs.
    try:
        opened = str(Path(f"/proc/{process.pid}/fd/1").readlink())
    except OSError:
        return False
    return process.pid != os.getpid() and opened.startswith(f"{home}/")
