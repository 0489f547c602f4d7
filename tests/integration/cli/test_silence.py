"""Readers do not lie: a worker that has not been heard of, and what it holds, is shown as silent, not as at work."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import config
from orchestrator.core import jobs, specs, states
from orchestrator.service import follow
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of
from tests.integration.cli.test_terminal import Screen, plain, screen

__all__ = ["screen"]

LONG_AGO = 4.5 * 3600.0  # six heartbeats of the default are 30 seconds; so long ago it is the same hour on any machine


@pytest.fixture
def held(store: base.Store) -> jobs.Job:
    """A job in training, held by worker-a."""
    claim = parts.training(store, spec=specs.parse({"data": "digits"}))
    store.record_progress(claim, jobs.Progress(done=3, total=4, epoch=2, epochs=5, rate=8))
    return store.get(claim.id)


@pytest.mark.parametrize(("seconds", "word"), [(0.0, "training"), (LONG_AGO, "silent")])
def test_a_job_is_at_work_as_long_as_its_worker_is_heard_of(
    orch: Orch, settings: config.Settings, held: jobs.Job, seconds: float, word: str
) -> None:
    heard_of(settings, seconds_ago=seconds)
    (listed,) = orch("list").rows
    status = orch("status").rows
    assert listed[:2] == [held.id, word]
    assert ["job", held.id, word] in [row[:3] for row in status]
    assert ["job", "doing", word] in orch("status", held.id).rows
    assert [row[2] for row in status if row[0] == "worker"] == ["silent" if seconds else "active"]


def test_programs_are_told_how_long_it_is_silent(orch: Orch, settings: config.Settings, held: jobs.Job) -> None:
    heard_of(settings, seconds_ago=LONG_AGO)
    overview = json.loads(orch("status", "--json").out)
    (worker,) = overview["workers"]
    assert (worker["state"], worker["silent"]) == ("active", True)
    assert worker["silence"] >= LONG_AGO
    job = json.loads(orch("status", held.id, "--json").out)["job"]
    assert [job["doing"], job["state"], job["eta"]] == ["silent", "running", None]
    assert job["doing"] == overview["active"][0]["doing"] == json.loads(orch("list", "--json").out)["jobs"][0]["doing"]


def test_why_a_silent_worker_s_job_does_not_go_on_is_said(
    orch: Orch, settings: config.Settings, held: jobs.Job
) -> None:
    heard_of(settings, seconds_ago=LONG_AGO)
    told = json.loads(orch("why", held.id, "--json").out)
    assert told["sentence"].startswith(f"It does not wait: {held.worker} holds it, which has been silent for 162")
    assert told["job"]["doing"] == "silent"
    assert f"job {held.id} is silent" in orch("logs", held.id).err
    assert json.loads(orch("worker", "list", "--json").out)["silent"]


def test_who_watches_a_job_sees_that_its_worker_is_silent(
    orch: Orch, settings: config.Settings, store: base.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = parts.training(store, spec=specs.parse({"data": "digits"}))
    heard_of(settings, seconds_ago=LONG_AGO)
    ends = SimpleNamespace(
        sleep=lambda _: store.finish(claim, parts.failed(states.Reason.DIVERGED)), monotonic=time.monotonic
    )
    monkeypatch.setattr(follow, "time", ends)  # it has ended at the second look
    ran = orch("watch", claim.id)
    assert (ran.code, [row[2] for row in ran.rows]) == (5, ["silent", "failed"])


def test_people_are_told_how_long_it_is_silent(screen: Screen, settings: config.Settings, held: jobs.Job) -> None:
    heard_of(settings, seconds_ago=LONG_AGO)
    glance = plain(screen("status", COLUMNS="200"))
    assert "No worker has been heard of for 4 h" in glance
    assert "? silent" in glance
    page = plain(screen("status", held.id, COLUMNS="200"))
    assert "training, epoch 2/5, 75 %: its worker has been silent for 4 h" in page
    assert "stage ends in" not in page


def test_a_new_job_is_not_said_to_run_soon(orch: Orch, settings: config.Settings, held: jobs.Job) -> None:
    heard_of(settings, seconds_ago=LONG_AGO)
    assert "No worker has been heard of for 4 h" in orch("submit", "--data", "digits").err
    (check,) = [row for row in orch("doctor").rows if row[1] == "worker"]
    assert check[0] == "warn"
    assert f"{parts.identity().id} silent" in check[2]
    assert held.worker == parts.identity().id


def test_who_said_goodbye_is_not_silent(orch: Orch, settings: config.Settings, store: base.Store) -> None:
    heard_of(settings, seconds_ago=LONG_AGO)
    store.beat_worker(parts.identity().id, states.WorkerState.STOPPED)
    assert not any(row[0] == "worker" for row in orch("status").rows)


def test_a_job_whose_checkpoints_no_worker_has_says_so_and_what_to_do(
    orch: Orch, screen: Screen, settings: config.Settings, store: base.Store
) -> None:
    claim = parts.training(store, spec=specs.parse({"data": "digits"}))
    store.record_checkpoint(claim, parts.checkpoint(claim, 3))
    store.finish(claim, parts.DRAINED)
    heard_of(settings, identity=parts.identity("worker-b"), artifact_root="another")
    assert ["job", "stranded", "true"] in orch("status", claim.id).rows
    assert json.loads(orch("status", claim.id, "--json").out)["stranded"]
    home = str(settings.home)
    page = " ".join(plain(screen("--home", home, "status", claim.id, COLUMNS="250")).split())  # long lines wrap
    assert "no running worker has its checkpoints" in page
    assert f"they lie in the artifact folder {parts.ROOT}, last used on host-a" in page
    assert f"`orch --home {home} cancel {claim.id}`, then `orch --home {home} retry --from-start {claim.id}`" in page
    assert "No running worker has the checkpoints of 1 job" in plain(screen("status", COLUMNS="250"))

    orch("cancel", claim.id)
    assert orch("retry", "--from-start", claim.id).rows == [[claim.id, "queued"]]
    assert ["job", "stranded", "false"] in orch("status", claim.id).rows
    assert parts.claim(store, root="another") is not None


def test_hints_on_a_job_s_page_mean_the_home_that_was_given(
    screen: Screen, settings: config.Settings, store: base.Store
) -> None:
    claim = parts.training(store, spec=specs.parse({"data": "digits"}))
    outcome = jobs.Outcome(kind="failed", reason=states.Reason.BAD_INPUT, error="No.", hint="`orch logs ID` tells.")
    store.finish(claim, outcome)
    waiting = parts.submit(store)
    home = os.path.relpath(settings.home, Path.cwd())
    assert f"`orch --home {home} logs ID` tells." in plain(screen("--home", home, "status", claim.id, COLUMNS="250"))
    page = plain(screen("--home", home, "status", waiting.id, COLUMNS="250"))
    assert f"no worker is running, `orch --home {home} up -d` starts one here" in page
