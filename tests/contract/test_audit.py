"""The audit finds nothing in a sound history, and each kind of damage that is done behind its back."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from orchestrator import config, errors, sockets
from orchestrator.core import jobs, specs, states
from orchestrator.core.findings import Finding, Kind
from orchestrator.service import audit
from orchestrator.store import attemptmodels, base, jobmodels, sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.contract.test_fences import EVALUATION

EPOCHS, PER_EPOCH = 3, 4


@dataclass
class Scene:
    """A job that went through a drain and a loss, its files, and ways to damage them."""

    settings: config.Settings
    store: sql.SqlStore
    job: str

    def found(self, *promised: str) -> set[Kind]:
        return {finding.kind for finding in audit.audit(self.settings, self.store, promised=promised)}

    def change(self, table: sqlalchemy.Table, where: str, **values: Any) -> None:
        """Change rows behind the store's back."""
        rows = sqlalchemy.update(table).where(sqlalchemy.text(where)).values(values)
        self.store.database.write(lambda connection: connection.execute(rows))

    def delete(self, table: sqlalchemy.Table, where: str) -> None:
        rows = sqlalchemy.delete(table).where(sqlalchemy.text(where))
        self.store.database.write(lambda connection: connection.execute(rows))

    def add(self, table: sqlalchemy.Table, like: str, **changed: Any) -> None:
        """Store a row again, with some values changed."""

        def work(connection: sqlalchemy.Connection) -> None:
            row = connection.execute(sqlalchemy.select(table).where(sqlalchemy.text(like))).first()
            assert row is not None
            connection.execute(table.insert().values({**dict(row._mapping), **changed}))

        self.store.database.write(work)

    def file(self, path: str, content: bytes = b"x") -> Path:
        """Write a file below the home."""
        full = self.settings.home / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(content)
        return full

    def socket(self, name: str) -> Path:
        """Write a file where the home's sockets lie."""
        folder = sockets.folder(self.settings)
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / name
        path.touch()
        return path

    def deleted(self) -> str:
        """Return the id of a job that was deleted."""
        job = parts.submit(self.store)
        self.store.delete(job.id, actor="ada")
        return job.id

    def newest(self) -> Path:
        return self.settings.artifact_dir / self.store.checkpoints(self.job)[0].path


def _save(scene: Scene, held: jobs.Claim, step: int, *, epoch: int, accuracy: float | None = None) -> None:
    path = f"{held.id}/attempt-{held.attempt:04d}/checkpoints/step-{step:07}.safetensors"
    content = f"{held.attempt} {step}".encode()
    scene.file(f"artifacts/{path}", content)
    point = replace(
        parts.checkpoint(held, step, epoch=epoch, accuracy=accuracy),
        path=path,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    rows = parts.epoch_rows(epoch, accuracy=accuracy) if accuracy is not None else []
    known = scene.store.checkpoints(held.id)
    kept = [each.path for each in scene.store.record_checkpoint(held, point, rows)]
    for gone in known:
        if gone.path not in kept:
            (scene.settings.artifact_dir / gone.path).unlink()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAUSES", (0.0, 0.0))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> tuple[Path, str]:
    """A home with a scene, to be copied, and the scene's job."""
    settings = config.Settings(home=tmp_path_factory.mktemp("built"))
    shutil.copy(migrated_file, settings.home)
    with closing(sql.open_store(settings, clock=HandClock())) as store:
        return settings.home, _build(settings, store).job


@pytest.fixture
def scene(settings: config.Settings, clock: HandClock, built: tuple[Path, str]) -> Iterator[Scene]:
    home, job = built
    shutil.copytree(home, settings.home)
    with closing(sql.open_store(settings, clock=clock)) as store:
        yield Scene(settings, store, job)


@pytest.fixture
def any_scene(any_settings: config.Settings, any_store: sql.SqlStore) -> Scene:
    return _build(any_settings, any_store)


def _build(settings: config.Settings, store: sql.SqlStore, **fields: Any) -> Scene:
    """Download; train to step 6 and drain; go on to step 10, be lost behind the checkpoint at 8; to the end."""
    spec = specs.parse({"data": "digits", "epochs": EPOCHS, "checkpoint_steps": PER_EPOCH, **fields})
    held = parts.training(store, spec=spec)
    scene = Scene(settings, store, held.id)
    scene.file("artifacts/.orch-root", parts.ROOT.encode())
    store.record_steps(held, parts.losses(1, 6))
    _save(scene, held, 4, epoch=1, accuracy=0.9)
    _save(scene, held, 6, epoch=1)
    held = parts.resume(store, held, step=6)
    store.record_steps(held, parts.losses(7, 10))
    _save(scene, held, 8, epoch=2, accuracy=0.5)
    held = parts.resume(store, held, step=8, ended=parts.failed(states.Reason.LOST))
    store.record_steps(held, parts.losses(9, 12))
    _save(scene, held, 12, epoch=3, accuracy=0.6)
    store.finish(held, parts.DONE)
    held = parts.claimed(store, states.Stage.EVALUATE)
    newest = held.checkpoints[0]
    store.record_evaluation(
        held,
        replace(EVALUATION, attempt=held.attempt, checkpoint_step=newest.step, checkpoint_sha256=newest.sha256),
    )
    store.finish(held, parts.DONE)
    return scene


def test_a_sound_history_has_no_findings(any_scene: Scene) -> None:
    assert audit.audit(any_scene.settings, any_scene.store, promised=[any_scene.job]) == []


@pytest.mark.parametrize(("patience", "found"), [(2, set()), (1, {Kind.EPOCHS}), (None, {Kind.EPOCHS})])
def test_an_early_end_is_where_patience_ends(
    settings: config.Settings, store: sql.SqlStore, patience: int | None, found: set[Kind]
) -> None:
    """The epochs' accuracies are 0.9, 0.5 and 0.6."""
    assert _build(settings, store, epochs=10, patience=patience).found() == found


def test_what_is_gone_at_another_look_was_under_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    brief, lasting = (Finding(kind=Kind.LEFTOVER, job=scene.job, sentence=word) for word in ("brief", "lasting"))
    looks = iter([[brief, lasting], [brief, lasting], [lasting]])
    monkeypatch.setattr(audit, "_look", lambda *_: next(looks))
    assert audit.audit(scene.settings, scene.store) == [lasting]


def test_a_promised_job_may_have_been_deleted(any_scene: Scene) -> None:
    gone = any_scene.deleted()
    assert any_scene.found(gone) == set()


def test_a_paused_job_repeats_nothing(settings: config.Settings, store: base.Store) -> None:
    held = parts.training(store, spec=specs.JobSpec(checkpoint_steps=4))
    store.record_steps(held, parts.losses(1, 6))
    store.record_checkpoint(held, parts.checkpoint(held, 4))
    parts.resume(store, held, step=4, ended=jobs.Outcome(kind="paused"))
    assert [finding.kind for finding in audit.audit(settings, store)] == [Kind.REPEATED]


def test_jobs_under_way_have_no_findings(scene: Scene) -> None:
    parts.submit(scene.store)
    held = parts.training(scene.store)
    scene.file(f"artifacts/{held.id}/attempt-{held.attempt:04d}/checkpoints/.step-0000003.safetensors.tmp")
    scene.store.record_steps(held, parts.losses(1, 3))
    cancelled = parts.submit(scene.store)
    scene.store.cancel(cancelled.id, actor="ada")
    scene.store.retry(cancelled.id, actor="ada")
    assert scene.found() == set()


def test_a_history_is_of_all_attempts(any_scene: Scene) -> None:
    rows = any_scene.store.history(any_scene.job)
    assert [attempt.line_end for attempt in rows.attempts] == [0, 6, 8, None, None]
    assert [attempt.last_step for attempt in rows.attempts] == [None, 6, 10, 12, None]
    assert [(span.attempt, span.first, span.last, span.count) for span in rows.steps] == [
        (2, 1, 6, 6),
        (3, 7, 10, 4),
        (4, 9, 12, 4),
    ]
    assert [row.step for row in rows.line if row.split == "val"] == [4, 8, 12]
    assert [point.step for point in rows.kept] == [12, 8, 4]
    with pytest.raises(errors.NotFound):
        any_scene.store.history("00000000")


_A_CHECKPOINT = "step = 8"
_SUCCESS = "new_state = 'succeeded'"


DAMAGES: list[tuple[Kind, Callable[[Scene], object]]] = [
    (Kind.MISSING, lambda s: s.delete(jobmodels.jobs, f"id = '{s.job}'")),
    (Kind.CHAIN, lambda s: s.change(jobmodels.events, _SUCCESS, old_state="queued")),
    (Kind.CHAIN, lambda s: s.delete(jobmodels.events, "kind = 'drained'")),
    (Kind.CHAIN, lambda s: s.delete(jobmodels.events, _SUCCESS)),
    (Kind.FINAL, lambda s: s.add(jobmodels.events, _SUCCESS, seq=10_000)),
    (Kind.FINAL, lambda s: s.delete(jobmodels.events, _SUCCESS)),
    (Kind.FENCE, lambda s: s.change(jobmodels.events, _SUCCESS, attempt=2)),
    (Kind.ATTEMPT, lambda s: s.change(attemptmodels.attempts, "attempt = 1", ended_at=None, outcome=None)),
    (Kind.ATTEMPT, lambda s: s.delete(attemptmodels.attempts, "attempt = 1")),
    (Kind.ATTEMPT, lambda s: s.change(attemptmodels.attempts, "attempt = 3", stage="evaluate")),
    (Kind.DEVICE, lambda s: s.change(attemptmodels.attempts, "attempt = 3", device="2 x CPU")),
    (Kind.LINE, lambda s: s.change(attemptmodels.attempts, "attempt = 3", line_end=None)),
    (Kind.LINE, lambda s: s.change(attemptmodels.attempts, "attempt = 4", resumed_from=None)),
    (Kind.LINE, lambda s: s.add(attemptmodels.checkpoints, _A_CHECKPOINT, step=10)),  # passed over in silence
    (Kind.EPOCHS, lambda s: s.delete(attemptmodels.epoch_metrics, "epoch = 2 AND split = 'val'")),
    (Kind.EPOCHS, lambda s: s.add(attemptmodels.epoch_metrics, "epoch = 2 AND split = 'val'", attempt=4)),
    (Kind.EPOCHS, lambda s: s.change(attemptmodels.epoch_metrics, "epoch = 2", step=7)),
    (Kind.EPOCHS, lambda s: s.delete(attemptmodels.epoch_metrics, "epoch = 3")),
    (Kind.STEPS, lambda s: s.delete(attemptmodels.step_metrics, "attempt = 3 AND step = 8")),
    (Kind.STEPS, lambda s: s.delete(attemptmodels.step_metrics, "attempt = 4 AND step = 12")),
    (Kind.STEPS, lambda s: s.delete(attemptmodels.step_metrics, "attempt = 2")),
    (Kind.REPEATED, lambda s: s.change(attemptmodels.attempts, "attempt = 3", last_step=20)),
    (Kind.REPEATED, lambda s: s.change(attemptmodels.attempts, "attempt = 2", last_step=7)),  # it drained at 6
    (Kind.EVALUATION, lambda s: s.delete(attemptmodels.evaluations, "attempt = 5")),
    (Kind.EVALUATION, lambda s: s.change(attemptmodels.evaluations, "attempt = 5", checkpoint_sha256="0" * 64)),
    (Kind.CHECKPOINT, lambda s: s.newest().write_bytes(b"4 13")),
    (Kind.CHECKPOINT, lambda s: s.newest().write_bytes(b"short")),
    (Kind.CHECKPOINT, lambda s: s.newest().unlink()),
    (Kind.CHECKPOINT, lambda s: s.change(attemptmodels.checkpoints, _A_CHECKPOINT, path="../../etc/passwd")),
    (Kind.RETENTION, lambda s: s.add(attemptmodels.checkpoints, "step = 4", step=3)),
    (Kind.RETENTION, lambda s: s.change(attemptmodels.checkpoints, "step = 4", best=False)),
    (Kind.RETENTION, lambda s: s.change(attemptmodels.checkpoints, _A_CHECKPOINT, last=True)),
    (Kind.RETENTION, lambda s: s.change(jobmodels.jobs, f"id = '{s.job}'", best_accuracy=0.1)),
    (Kind.LEFTOVER, lambda s: s.newest().with_name(".step-0000013.safetensors.tmp").touch()),
    (Kind.LEFTOVER, lambda s: s.newest().with_name("step-0000011.safetensors").touch()),
    (Kind.LEFTOVER, lambda s: s.file(f"artifacts/{s.job}/attempt-0005/pid", b"1")),
    (Kind.LEFTOVER, lambda s: s.file(f"artifacts/{s.job}/attempt-0005/journal.jsonl")),
    (Kind.LEFTOVER, lambda s: s.file(f"artifacts/{s.job}/attempt-0001/log.txt")),
    (Kind.LEFTOVER, lambda s: s.file(f"artifacts/{s.deleted()}/attempt-0001/log.txt")),
    (Kind.LEFTOVER, lambda s: s.file("artifacts/.orch-root.0a1b2c3d")),
    (Kind.LEFTOVER, lambda s: s.file("run/node.pid")),
    (Kind.LEFTOVER, lambda s: s.file("run/node.drain")),
    (Kind.LEFTOVER, lambda s: s.file("run/living/0a1b2c")),
    (Kind.LEFTOVER, lambda s: s.file("run/0a1b2c.permits")),
    (Kind.LEFTOVER, lambda s: s.socket("fork-7-0a1b2c.sock")),
    (Kind.LEFTOVER, lambda s: s.socket("broker.sock")),
    (Kind.LEFTOVER, lambda s: s.file("data/archives/0a1b.part")),
    (Kind.LEFTOVER, lambda s: s.file("data/sets/.0a1b/archive/picture.png")),
    (Kind.LEFTOVER, lambda s: s.file("data/locks/0a1b.progress")),
    (Kind.LEFTOVER, lambda s: s.file(f"data/sources/.0a1b.json.{2**22 + 1}")),
]


@pytest.mark.parametrize(
    ("kind", "damage"), DAMAGES, ids=[f"{kind}-{number}" for number, (kind, _) in enumerate(DAMAGES)]
)
def test_damage_is_found(kind: Kind, damage: Callable[[Scene], object], scene: Scene) -> None:
    damage(scene)
    assert kind in scene.found(scene.job)


def test_every_kind_but_processes_is_in_the_table() -> None:
    assert {kind for kind, _ in DAMAGES} == set(Kind) - {Kind.PROCESS}


def test_what_is_held_is_left_alone(scene: Scene) -> None:
    """Locks that a living process holds say that the files beside them are in use."""
    locks = [scene.file(f"run/{name}") for name in ("node.lock", "living/0a1b2c", "broker.lock")]
    locks.append(scene.file("data/locks/0a1b.lock"))
    for name in ("run/node.pid", "run/node.drain", "run/0a1b2c.permits"):
        scene.file(name)
    for name in ("fork-7-0a1b2c.sock", "broker.sock"):
        scene.socket(name)
    for name in ("data/archives/0a1b.part", "data/sets/.0a1b/archive/picture.png", "data/locks/0a1b.progress"):
        scene.file(name)
    opened = [lock.open("rb") for lock in locks]
    for file in opened:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert scene.found() == set()
    for file in opened:
        file.close()
    assert scene.found() == {Kind.LEFTOVER}


def test_a_download_that_may_go_on_keeps_its_part(scene: Scene) -> None:
    parts.submit(scene.store)
    scene.file("data/archives/0a1b.part")
    assert scene.found() == set()


def test_a_process_of_an_ended_attempt_is_found(scene: Scene) -> None:
    folder = scene.file(f"artifacts/{scene.job}/attempt-0005/log.txt").parent
    with (folder / "log.txt").open("wb") as log:
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log, stderr=log)
    (folder / "pid").write_text(str(left.pid))
    found = scene.found()
    left.communicate(b"\n")
    assert Kind.PROCESS in found


def test_a_checkpoint_said_to_be_damaged_may_be_passed_over(settings: config.Settings, store: base.Store) -> None:
    held = parts.training(store)
    store.record_steps(held, parts.losses(1, 8))
    for step in (4, 8):
        store.record_checkpoint(held, parts.checkpoint(held, step))
    store.finish(held, parts.failed(states.Reason.LOST))
    held = parts.claimed(store)
    store.note(held, kind="checkpoint_damaged", detail="the one at 8")
    store.record_resumed(held, attempt=2, step=4)
    assert audit.audit(settings, store) == []


def test_who_could_not_write_its_checkpoints_may_repeat_steps(settings: config.Settings, store: base.Store) -> None:
    held = parts.training(store, spec=specs.JobSpec(checkpoint_steps=4))
    store.record_steps(held, parts.losses(1, 10))
    store.record_checkpoint(held, parts.checkpoint(held, 4))
    store.note(held, kind="given_up", detail="the one at 8")
    parts.resume(store, held, step=4, ended=parts.failed(states.Reason.LOST))
    assert audit.audit(settings, store) == []


def test_a_killed_drain_may_repeat_steps(settings: config.Settings, store: base.Store) -> None:
    held = parts.training(store, spec=specs.JobSpec(checkpoint_steps=4))
    store.record_steps(held, parts.losses(1, 6))
    store.record_checkpoint(held, parts.checkpoint(held, 4))
    parts.resume(store, held, step=4, ended=replace(parts.DRAINED, error="it was killed"))
    assert audit.audit(settings, store) == []
