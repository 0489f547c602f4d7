"""What people do with jobs: every command may die on its way, and is typed again."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable

from orchestrator import config, errors
from orchestrator.core import jobs, states, verbs
from orchestrator.service import backup, context, control, doctor, predict, restore, schema
from orchestrator.store import base, engine, models
from tests.faults import homes
from tests.faults.scenarios import work

#: What people ask of the store.
QUESTIONS: dict[str, Callable[[base.Store, str], object]] = {
    "attempts": lambda store, job_id: store.attempts(job_id),
    "copies": lambda store, job_id: store.copies(store.get(job_id)),
    "checkpoints": lambda store, job_id: store.checkpoints(job_id),
    "dataset": lambda store, _: store.dataset("0" * 64),
    "dependencies": lambda store, job_id: store.dependencies(job_id),
    "epochs": lambda store, job_id: store.epochs(job_id),
    "evaluation": lambda store, job_id: store.evaluation(job_id),
    "events": lambda store, job_id: store.events(job_id),
    "find": lambda store, job_id: store.find(job_id),
    "first": lambda store, _: store.first("walker", states.Stage.DOWNLOAD, limit=1),
    "get": lambda store, job_id: store.get(job_id),
    "held_back": lambda store, _: store.held_back(),
    "history": lambda store, job_id: store.history(job_id),
    "hosts": lambda store, _: store.hosts(),
    "jobs": lambda store, _: store.jobs(jobs.JobFilter()),
    "logs": lambda store, job_id: store.logs(job_id),
    "provenance": lambda store, job_id: store.provenance(job_id),
    "rehearse": lambda store, job_id: store.rehearse(jobs.NewJob(spec=store.find(job_id).spec, user="walker")),
    "results": lambda store, _: store.results("0" * 64),
    "running": lambda store, _: store.running(states.Stage.TRAIN),
    "standing": lambda store, job_id: store.standing(job_id),
    "steps": lambda store, job_id: store.steps(job_id),
    "time": lambda store, _: store.time(),
}


def fresh(home: homes.Home) -> None:
    """The first command of all makes the database."""
    home.arm()
    job_id = home.submit()
    home.call(schema.check)
    work.succeeds(home, job_id)


def sourced(home: homes.Home) -> None:
    """A job is submitted in a git repository."""
    folder = home.path / "source"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    home.arm()
    work.succeeds(home, home.submit(folder=folder))


def looked(home: homes.Home) -> None:
    """Every question, on a job that waits and is cancelled then."""
    job_id = home.submit()
    home.arm()

    def look(settings: config.Settings) -> None:
        with context.opened(settings) as it:
            for ask in QUESTIONS.values():
                ask(it.store, job_id)

    home.call(look)
    _cancel(home, job_id)


def cancelled(home: homes.Home) -> None:
    """A download is cancelled: nothing stays of it."""
    job_id = home.submit(f"{home.shared.url}/slow.zip")
    archives = home.settings.data_dir / "archives"
    home.until(lambda: any(archives.glob("*.part")))
    home.arm()
    _cancel(home, job_id)
    assert home.ends(job_id) == "cancelled"
    home.until(lambda: not any(archives.glob("*")))


def paused(home: homes.Home) -> None:
    """A training is set aside and goes on."""
    home.set("checkpoint.open", "hold")
    job_id = home.submit()
    home.held("checkpoint.open")
    home.arm()

    def pause(settings: config.Settings) -> str:
        with context.opened(settings) as it:
            return control.pause(settings, it.store, job_id).id

    def resume(settings: config.Settings) -> str:
        # A command that died behind its commit finds the job going on.
        with context.opened(settings) as it, contextlib.suppress(errors.IllegalMove):
            control.resume(settings, it.store, job_id)
        return job_id

    home.call(pause)
    heard = home.beat() + 2
    home.until(lambda: home.rows("SELECT 1 FROM jobs WHERE beat >= ? OR state <> 'running'", heard))
    home.let_go("checkpoint.open")
    home.until(lambda: home.rows("SELECT 1 FROM jobs WHERE id = ? AND state = 'paused'", job_id))
    home.call(resume)
    work.succeeds(home, job_id)


def yielded(home: homes.Home) -> None:
    """A training makes room for an urgent job, and goes on."""
    home.set("checkpoint.open", "hold")
    long = home.submit(preemptible=True)
    home.held("checkpoint.open")
    home.arm()
    urgent = home.submit(priority=5)
    # Where the training is lost meanwhile, the urgent job goes first by itself.
    asked = "SELECT attempt, beat FROM jobs WHERE id = ? AND (wish = 'yield' OR state <> 'running')"
    ((attempt, beat),) = home.until(lambda: home.rows(asked, long))
    heard = "SELECT 1 FROM jobs WHERE id = ? AND (attempt > ? OR beat >= ? OR state <> 'running')"
    home.until(lambda: home.rows(heard, long, attempt, beat + 2))
    home.let_go("checkpoint.open")
    work.succeeds(home, urgent)
    work.succeeds(home, long)


def retried(home: homes.Home) -> None:
    """The data is not there at first: its owner puts it there and retries."""
    data = home.path / "late.zip"
    job_id = home.submit(str(data))
    assert home.ends(job_id) == "failed"
    data.write_bytes(home.shared.archive.read_bytes())
    home.arm()

    def retry(settings: config.Settings) -> str:
        # The same.
        with contextlib.suppress(errors.IllegalMove):
            work.again(settings, job_id)
        return job_id

    home.call(retry)
    assert home.ends(job_id) == "succeeded"


def steered(home: homes.Home) -> None:
    """Many jobs are cancelled at once."""
    job_ids = [home.submit(), home.submit(seed=1)]
    home.promised |= dict.fromkeys(job_ids, "cancelled")
    home.arm()

    def steer(settings: config.Settings) -> int:
        with context.opened(settings) as it:
            return len(list(it.store.steer(verbs.Change(verb=verbs.Verb.CANCEL), job_ids, actor="walker")))

    assert home.call(steer) == len(job_ids)


def deleted(home: homes.Home) -> None:
    """A job is deleted with its files: what a command that died or failed has left, a node removes."""
    job_id = home.submit()
    work.succeeds(home, job_id)
    home.arm()
    home.promised[job_id] = None

    def delete(settings: config.Settings) -> str:
        with context.opened(settings) as it, contextlib.suppress(errors.NotFound):
            control.delete(settings, it.store, it.store.find(job_id))
        return job_id

    home.call(delete)
    home.until(lambda: not (home.settings.artifact_dir / job_id).exists())


def predicted(home: homes.Home) -> None:
    """A trained job is asked about a picture."""
    job_id = home.submit()
    work.succeeds(home, job_id)
    home.arm()
    picture = next(home.settings.data_dir.glob("sets/*/data/validation/*/*"))

    def guess(settings: config.Settings) -> list[str]:
        with context.opened(settings) as it:
            return [found.guesses[0].label for found in predict.predict(settings, it.store, job_id, [picture])]

    assert len(home.call(guess)) == 1


def examined(home: homes.Home) -> None:
    """The doctor looks at everything while a job waits."""
    job_id = home.submit()
    home.arm()
    home.call(lambda settings: [check.name for check in doctor.examine(settings)])
    work.succeeds(home, job_id)


def restored(home: homes.Home) -> None:
    """All is backed up, then lost, then restored: whoever died or failed over it says it again."""
    job_id = home.submit()
    work.succeeds(home, job_id)
    home.leave()
    file = home.path / "all.zip"
    home.arm()

    def keep(settings: config.Settings) -> int:
        made = backup.backup(settings, file, hear=lambda _: None, force=True).manifest
        assert not made.left_out  # a file that could not be read is told of: its owner says it again
        return made.files

    def lose(settings: config.Settings) -> None:
        shutil.rmtree(settings.artifact_dir)
        with contextlib.closing(engine.Database(settings.database, foreign_keys=False)) as database:
            database.write(models.metadata.drop_all)
            database.write(lambda connection: connection.exec_driver_sql("DROP TABLE alembic_version"))

    def put_back(settings: config.Settings) -> None:
        # A command that died behind its commit finds the jobs there.
        with contextlib.suppress(errors.IllegalMove):
            restore.restore(settings, file, hear=lambda _: None)

    assert home.call(keep) > 0
    lose(home.settings)
    home.call(put_back)
    assert home.ends(job_id) == "succeeded"


def _cancel(home: homes.Home, job_id: str) -> None:
    home.promised[job_id] = "cancelled"

    def cancel(settings: config.Settings) -> str:
        with context.opened(settings) as it:
            return control.cancel(settings, it.store, job_id).id

    home.call(cancel)
