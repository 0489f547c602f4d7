"""What nobody needs goes, with its bytes told; what a job, a lease or a process refers to stays."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from orchestrator import config
from orchestrator.core import jobs, layout, specs, states
from orchestrator.store import sql
from tests.contract import parts
from tests.support import pictures
from worker import folders, garbage
from worker.data import cache, decoded, sources, supply

Collect = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def collect(settings: config.Settings, monkeypatch: pytest.MonkeyPatch, store: sql.SqlStore) -> Collect:
    """Collects, and returns what was told by path below the home."""
    del store  # made

    def run(*, dry_run: bool = False, orphans: bool = False, **fields: Any) -> dict[str, dict[str, Any]]:
        said: list[dict[str, Any]] = []
        monkeypatch.setattr(config, "load", lambda: settings.model_copy(update=fields))
        garbage.collect(garbage.Request(dry_run=dry_run, orphans=orphans), said.append)
        items = (answer["item"] for answer in said)
        return {str(Path(item["path"]).relative_to(settings.home)): item for item in items}

    return run


def files(settings: config.Settings, job_id: str) -> set[str]:
    root = settings.artifact_dir / job_id
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def _write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"0123456789")


@pytest.fixture
def held(store: sql.SqlStore, settings: config.Settings) -> jobs.Claim:
    """A training in its second attempt, with a checkpoint of the first one, and litter in both."""
    first = parts.training(store)
    point = parts.checkpoint(first, 3)
    path = f"{first.id}/attempt-{first.attempt:04d}/checkpoints/step-3"
    store.record_checkpoint(first, jobs.Checkpoint(**{**vars(point), "path": path}))
    held = parts.resume(store, first, step=3)
    root = settings.artifact_dir
    _write(root, path)
    _write(layout.attempt(root, held.id, 1), "log.txt")
    _write(layout.attempt(root, held.id, first.attempt), "log.txt", "checkpoints/step-2", "journal.jsonl")
    _write(layout.attempt(root, held.id, held.attempt), "log.txt", "checkpoints/step-4", "pid")
    return held


def test_a_running_attempt_and_what_is_kept_stay(
    collect: Collect, store: sql.SqlStore, settings: config.Settings, held: jobs.Claim
) -> None:
    before = files(settings, held.id)
    looked = collect(dry_run=True)
    assert files(settings, held.id) == before
    item = looked[f"artifacts/{held.id}"]
    assert (item["kind"], item["bytes"], item["removed"], item["removable"]) == ("ended attempts", 30, False, True)
    gone = collect()[f"artifacts/{held.id}"]
    assert (gone["bytes"], gone["removed"]) == (30, True)
    own, of_first = f"attempt-{held.attempt:04d}", f"attempt-{held.attempt - 1:04d}"
    kept = {f"{of_first}/checkpoints/step-3", f"{of_first}/log.txt"}
    assert files(settings, held.id) == kept | {f"{own}/{name}" for name in ("log.txt", "checkpoints/step-4", "pid")}
    assert collect() == {}
    store.finish(held, parts.DRAINED)
    assert collect()[f"artifacts/{held.id}"]["bytes"] == 20
    assert files(settings, held.id) == kept | {f"{own}/log.txt"}


def test_the_files_of_a_deleted_job_go(collect: Collect, store: sql.SqlStore, settings: config.Settings) -> None:
    job = parts.submit(store)
    _write(settings.artifact_dir, f"{job.id}/attempt-0001/log.txt")
    store.delete(job.id, actor="ada")
    told = collect(dry_run=True)[f"artifacts/{job.id}"]
    assert (told["kind"], told["bytes"]) == ("deleted job", 10)
    assert collect()[f"artifacts/{job.id}"]["removed"]
    assert not (settings.artifact_dir / job.id).exists()


def test_what_the_database_has_never_heard_of_goes_only_where_that_is_said(
    collect: Collect, settings: config.Settings
) -> None:
    _write(settings.artifact_dir, "zzzzzzzz/attempt-0001/log.txt", "elsewhere/attempt-0001/log.txt", "yyyyyyyy/other")
    told = collect()
    assert [(name, item["kind"], item["removable"]) for name, item in told.items()] == [
        ("artifacts/zzzzzzzz", "orphan", False)
    ]
    assert collect(orphans=True)["artifacts/zzzzzzzz"]["removed"]
    assert {path.name for path in settings.artifact_dir.iterdir()} == {"elsewhere", "yyyyyyyy"}


def test_downloads_that_a_job_or_a_process_goes_on_with_stay(
    collect: Collect, store: sql.SqlStore, settings: config.Settings
) -> None:
    spec = specs.parse({"data": "https://example.org/pets.zip"})
    parts.submit(store, spec=spec)
    wanted = sources.parse(spec.data).key
    _write(settings.data_dir / "archives", f"{wanted}.part", "0a1b.part", "2c3d.part")
    with filelock.FileLock(_made(settings.data_dir / "locks") / "2c3d.lock"):
        told = collect()
    assert list(told) == ["data/archives/0a1b.part"]
    assert told["data/archives/0a1b.part"]["bytes"] == 10
    left = {path.name for path in (settings.data_dir / "archives").iterdir()}
    assert left == {f"{wanted}.part", "2c3d.part"}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def three_sets(settings: config.Settings, tmp_path: Path) -> list[str]:
    """Three unpacked sets, the one used longest ago first; hashes."""
    found = []
    for number in range(3):
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            members = pictures.members(size=(8 + number, 8), splits={"train": 2, "validation": 1})
            for name, content in members.items():
                packed.writestr(name, content)
        spec = specs.parse({"data": str(archive)})
        data = supply.ensure_data(spec, expected_hash=None, settings=settings, report=lambda _: None)
        for path in (*settings.data_dir.glob("sources/*.json"), settings.data_dir / f"sets/{data.hash}/manifest.json"):
            if data.hash in path.read_text("utf-8"):
                os.utime(path, (1000 + number, 1000 + number))
        found.append(data.hash)
    return found


def test_over_its_limit_the_cache_loses_what_was_used_longest_ago(
    collect: Collect, settings: config.Settings, three_sets: list[str]
) -> None:
    sizes = {folder.name: manifest.bytes for folder, manifest in cache.Cache(settings.data_dir).manifests()}
    assert collect() == {}  # no limit
    limit = sizes[three_sets[1]] + sizes[three_sets[2]]
    told = collect(data_max_bytes=limit)
    assert list(told) == [f"data/sets/{three_sets[0]}"]
    assert told[f"data/sets/{three_sets[0]}"]["bytes"] == sizes[three_sets[0]]
    assert {folder.name for folder, _ in cache.Cache(settings.data_dir).manifests()} == set(three_sets[1:])
    assert collect(data_max_bytes=limit) == {}


def _pixels(settings: config.Settings, name: str) -> Path:
    folder = _made(settings.data_dir / decoded.FOLDER / name)
    _write(folder, "index", "x.pixels")
    return folder


def test_pixels_that_no_training_reads_again_go(
    collect: Collect, settings: config.Settings, three_sets: list[str]
) -> None:
    first = three_sets[0][:32]
    used = _pixels(settings, f"{first}-{decoded._decoder()}")
    older = _pixels(settings, f"{first}-00000000")
    gone = _pixels(settings, f"{'0' * 32}-{decoded._decoder()}")
    with filelock.FileLock(_made(settings.data_dir / "locks") / f"{gone.name}.lock"):
        told = collect()
    assert {path: (item["kind"], item["bytes"], item["removed"]) for path, item in told.items()} == {
        f"data/decoded/{gone.name}": ("decoded pictures", 20, False),  # a training adds to them
        f"data/decoded/{older.name}": ("decoded pictures", 20, True),
    }
    assert [folder.exists() for folder in (used, older, gone)] == [True, False, True]


def test_compiled_code_goes_that_no_training_has_begun_with_for_a_month(
    collect: Collect, settings: config.Settings
) -> None:
    root = folders.compiled(settings.data_dir)
    old, used = (_made(root / name) for name in ("old", "used"))
    for folder in (old, used):
        _write(_made(folder / "fxgraph"), "code.so")
    os.utime(old, (0, 0))
    told = collect()
    assert {path: (item["kind"], item["bytes"], item["removed"]) for path, item in told.items()} == {
        "data/compiled/old": ("compiled code", 10, True)
    }
    assert (old.exists(), used.exists()) == (False, True)


def test_a_set_is_told_with_its_pixels(collect: Collect, settings: config.Settings, three_sets: list[str]) -> None:
    folder = _pixels(settings, f"{three_sets[0][:32]}-{decoded._decoder()}")
    assert decoded.taken(settings.data_dir, three_sets[0]) == 20
    assert decoded.taken(settings.data_dir, three_sets[1]) == 0
    sizes = {folder.name: manifest.bytes for folder, manifest in cache.Cache(settings.data_dir).manifests()}
    told = collect(data_max_bytes=sizes[three_sets[1]] + sizes[three_sets[2]])
    assert told[f"data/sets/{three_sets[0]}"]["bytes"] == sizes[three_sets[0]] + 20
    assert not folder.exists()


def test_no_set_goes_that_a_job_or_a_process_needs(
    collect: Collect, store: sql.SqlStore, settings: config.Settings, three_sets: list[str], tmp_path: Path
) -> None:
    parts.submit(store, spec=specs.parse({"data": str(tmp_path / "0.zip")}))  # its download is to come
    dataset = jobs.Dataset(hash=three_sets[1], source="x", classes=(), counts={}, bytes=1, path="x")
    held = parts.claimed(store, states.Stage.DOWNLOAD)
    store.record_dataset(held, dataset)
    store.finish(held, parts.DONE)
    parts.submit(store, spec=specs.parse({"data": str(tmp_path / "0.zip")}))
    spec = specs.parse({"data": str(tmp_path / "2.zip")})
    with supply.using(spec, expected_hash=None, settings=settings, report=lambda _: None):
        told = collect(data_max_bytes=0)
    assert list(told) == [f"data/sets/{three_sets[2]}"]
    assert told[f"data/sets/{three_sets[2]}"]["removed"] is False
    assert "is in use" in told[f"data/sets/{three_sets[2]}"]["why"]
    assert len(list(cache.Cache(settings.data_dir).manifests())) == 3


def test_weights_of_bundles_stay_for_jobs_that_have_begun_with_them(
    collect: Collect, store: sql.SqlStore, settings: config.Settings
) -> None:
    _write(settings.bundle_dir, "used.safetensors", "left.safetensors", "new.safetensors")
    for name in ("used", "left"):
        os.utime(settings.bundle_dir / f"{name}.safetensors", (0, 0))
    weights = {"weights": str(settings.bundle_dir / "used.safetensors"), "weights_sha256": "0" * 64}
    job = parts.submit(store, spec=specs.parse(weights))
    told = collect()
    assert {path: (item["kind"], item["removed"]) for path, item in told.items()} == {
        "bundles/left.safetensors": ("bundled weights", True)  # one that is new may be of a job about to be queued
    }
    store.cancel(job.id, actor="ada")
    assert collect() == {}  # it may be tried again
    parts.overwrite(store, job.id, stage=states.Stage.EVALUATE, state=states.JobState.SUCCEEDED)
    assert collect() == {}  # it may be cloned, bundled or verified
    store.delete(job.id, actor="ada")
    assert set(collect()) == {"bundles/used.safetensors"}
