"""What a dry run says of the time that a training takes."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import jobs, specs, states
from orchestrator.core.states import Stage
from orchestrator.service import outlookviews
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from tests.integration.cli.test_why import worker

RECIPE = ("--data", "digits", "--network", "densenet_bc_40_12", "--image-size", "16")
SPEC = specs.parse({"data": "digits", "network": "densenet_bc_40_12", "image_size": 16})

PARTS: tuple[tuple[jobs.Split, int, float], ...] = (("train", 100, 0.9), ("val", 10, 0.1))


def trained(store: sql.SqlStore, *seconds: float) -> jobs.Job:
    """Let a job pass its training, whose epochs of 100 pictures and 10 took so long."""
    job = parts.submit(store, spec=SPEC)
    held = parts.claimed(store, Stage.DOWNLOAD)
    dataset = jobs.Dataset(
        hash="d" * 64, source="digits", classes=("a", "b"), counts={"train": 100, "val": 10}, bytes=1, path="/d"
    )
    store.record_dataset(held, dataset)
    store.finish(held, parts.DONE)
    held = parts.claimed(store, Stage.TRAIN)
    store.record_resumed(held, attempt=None, step=0)
    store.record_environment(held, parts.ENVIRONMENT)
    for epoch, took in enumerate(seconds, start=1):
        rows = [
            jobs.EpochMetric(epoch=epoch, split=split, loss=1, accuracy=0.5, images=images, seconds=share * took)
            for split, images, share in PARTS
        ]
        store.record_checkpoint(held, parts.checkpoint(held, 10 * epoch, epoch=epoch, accuracy=0.5), rows)
    store.finish(held, parts.DONE)
    assert store.get(job.id).state is states.JobState.QUEUED  # for its evaluation: it counts once that is done
    store.finish(parts.claimed(store, Stage.EVALUATE), parts.DONE)
    return job


def outlook(orch: Orch, *words: str) -> outlookviews.ResolvedPayload:
    ran = orch("submit", *words, "--dry-run", "--json")
    assert ran.code == 0
    return outlookviews.ResolvedPayload.model_validate_json(ran.out)


def test_a_dry_run_goes_by_the_job_that_is_nearest(orch: Orch, store: sql.SqlStore) -> None:
    job = trained(store, 20, 20, 20)
    said = outlook(orch, *RECIPE, "--epochs", "6").outlook
    assert said is not None
    assert (said.job, said.host, said.counts) == (job.id, "host-a", {"train": 100, "val": 10})
    assert said.total.low < 6 * 20 < said.total.high
    assert said.total.low / 6 == pytest.approx(said.epoch.low)
    ran = orch("submit", *RECIPE, "--epochs", "6", "--dry-run")
    assert f"as job {job.id} measured on host-a" in ran.err
    larger = outlook(orch, *RECIPE[:-1], "32").outlook
    assert larger is not None
    assert {"image_size"} < set(larger.differs) <= {"image_size", "host", "batch_size"}
    assert larger.epoch.high > 4 * said.epoch.high


def test_a_dry_run_says_where_the_job_would_stand(orch: Orch, store: sql.SqlStore) -> None:
    parts.submit(store, user="bob")
    place = outlook(orch, *RECIPE, "--user", "ada").place
    assert place is not None
    assert (place.sentence, place.before) == ("It is queued for download: no worker is running.", {"bob": 1})
    said = orch("submit", *RECIPE, "--after", "@latest", "--dry-run").err
    assert f"If you submit it now: it is queued for download, and waits for {store.find('@latest').id}." in said
    assert orch("submit", *RECIPE, "--after", "nobody", "--dry-run").code == 3
    parts.submit(store, user="ada", idempotency_key="once")
    assert "The idempotency key is known" in orch("submit", "--idempotency-key", "once", "--dry-run").err
    assert orch("submit", *RECIPE, "--idempotency-key", "once", "--dry-run").code == 2
    assert "If you submit it now" in orch("submit", "--idempotency-key", "twice", "--dry-run").err
    assert len(store.jobs(jobs.JobFilter())) == 2


def test_a_dry_run_says_when_the_job_would_begin_and_end(
    orch: Orch, store: sql.SqlStore, settings: config.Settings
) -> None:
    trained(store, 20, 20, 20)
    with closing(sql.open_store(settings)) as present:  # by the clock of the command, to which it is not silent
        present.register(worker("worker-a", devices=("CPU",)))
    said = outlook(orch, *RECIPE, "--epochs", "6")
    assert said.place is not None
    assert said.place.begins is not None
    assert said.place.begins.low == 0
    assert said.place.ends is not None
    assert said.place.ends.low < 6 * 20 < said.place.ends.high
    assert "It begins in " in orch("submit", *RECIPE, "--epochs", "6", "--dry-run").err


def test_a_dry_run_says_where_no_worker_can_ever_run_the_job(orch: Orch, store: sql.SqlStore) -> None:
    store.register(worker("worker-a", devices=("CPU",)))
    said = orch("submit", *RECIPE, "--label", "lab=a", "--dry-run").err
    assert "No worker that runs now can ever run it: worker-a " in said


def test_a_fresh_installation_goes_by_the_table_and_stays_one(
    orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.variable("home"), str(tmp_path / "fresh"))
    ran = orch("submit", "--dry-run", "--json")
    said = json.loads(ran.out)["outlook"]
    assert (said["job"], said["counts"], json.loads(ran.out)["place"]) == (None, None, None)
    assert {"layout", "precision"}.isdisjoint(said["differs"])
    assert any(one["changes"] == {"image_size": 64, "batch_size": 16} for one in said["faster"])
    assert "For every 1,000 pictures" in orch("submit", "--dry-run").err
    assert not (tmp_path / "fresh").exists()


def test_why_foresees_a_recipe_of_which_only_others_were_measured(orch: Orch, store: sql.SqlStore) -> None:
    trained(store, 20, 20, 20)
    other = parts.submit(store, spec=specs.parse({**dict(SPEC), "batch_size": 8, "memory": "lean"}))
    held = parts.claimed(store, Stage.DOWNLOAD)
    store.record_dataset(held, jobs.Dataset(**vars(store.dataset("d" * 64))))
    store.finish(held, parts.DONE)
    parts.claimed(store, Stage.TRAIN)
    assert json.loads(orch("why", other.id, "--json").out)["ends"] is not None
