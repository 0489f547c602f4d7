"""`orch status`, `list`, `events`, `logs`: golden lines in a pipe, documented models in JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core import jobs, specs, states
from orchestrator.service import views
from orchestrator.store import base
from tests.conftest import HandClock
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of

NOON = "2026-11-24T12:00:00Z"
DATA = {"data": "digits", "network": "densenet_tiny"}
USED = ["1.5", "2048", "0.25", "", ""]


def _rows() -> list[jobs.EpochMetric]:
    """The rows of an epoch, with what its training took."""
    val, train = parts.epoch_rows(1)
    return [val, replace(train, usage=jobs.Usage(cores=1.5, memory=2048, waiting=0.25))]


@pytest.fixture
def trained(store: base.Store, clock: HandClock) -> jobs.Job:
    """A job that has succeeded, with one epoch, a checkpoint and an evaluation."""
    held = parts.training(store, spec=specs.parse(DATA), name="cats", tags=("a", "b"))
    dataset = jobs.Dataset(
        hash="d" * 64, source="digits", classes=("0", "1"), counts={"train": 10, "val": 4}, bytes=99, path="/data/d"
    )
    store.record_dataset(held, dataset)
    clock.move(seconds=60)
    store.record_checkpoint(held, parts.checkpoint(held, 3, accuracy=0.5, epoch=1), _rows())
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="epoch 1\n\x1b[31mhalf "))
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=1, text="a line"))
    store.finish(held, jobs.Outcome(kind="done", last_step=3))
    held = parts.claimed(store, states.Stage.EVALUATE)
    evaluation = jobs.Evaluation(
        attempt=held.attempt,
        checkpoint_step=3,
        checkpoint_sha256=f"{3:064x}",
        loss=0.7,
        accuracy=0.75,
        images=4,
        classes=("0", "1"),
        precision=(1.0, 0.5),
        recall=(0.5, 1.0),
        confusion=((1, 1), (0, 2)),
        seconds=0.1,
    )
    store.record_evaluation(held, evaluation)
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="evaluated\n"))
    return store.finish(held, parts.DONE)


def fail(store: base.Store) -> jobs.Job:
    held = parts.training(store, spec=specs.parse(DATA))
    outcome = jobs.Outcome(kind="failed", reason=states.Reason.BAD_INPUT, error="One class.", hint="Two are needed.")
    return store.finish(held, outcome)


def test_list_is_one_line_a_job_and_nothing_is_cut(orch: Orch, store: base.Store, trained: jobs.Job) -> None:
    waiting = parts.submit(store, spec=specs.parse({"data": "https://example.org/" + "x" * 200 + ".zip"}))
    row = [trained.id, "succeeded", "cats", "densenet_tiny", "digits", "", "0.5", "a,b", "ada", NOON, "60.0"]
    assert orch("list").rows[1] == row
    assert orch("list").rows[0][4] == waiting.spec.data


def test_list_chooses(orch: Orch, store: base.Store, trained: jobs.Job) -> None:
    failed = fail(store)
    assert [row[0] for row in orch("list").rows] == [failed.id, trained.id]
    assert [row[0] for row in orch("list", "--state", "failed").rows] == [failed.id]
    assert [row[0] for row in orch("list", "--tag", "a").rows] == [trained.id]
    assert [row[0] for row in orch("list", "-n", "1").rows] == [failed.id]
    listed = views.JobsPayload.model_validate_json(orch("list", "-a", "--json").out)
    assert [job.id for job in listed.jobs] == [failed.id, trained.id]
    assert orch("list", "--state", "broken").code == 2


def test_an_empty_list_is_empty_in_a_pipe(orch: Orch, store: base.Store) -> None:
    assert store.jobs(jobs.JobFilter()) == []
    assert orch("list").out == ""


def test_status_of_a_job_in_a_pipe(orch: Orch, trained: jobs.Job, settings: Any) -> None:
    rows = orch("status", "cats").rows
    path = str(settings.artifact_dir / f"jobs/{trained.id}/2/step-3")
    for row in (
        ["job", "id", trained.id],
        ["job", "state", "succeeded"],
        ["job", "best_accuracy", "0.5"],
        ["job", "submitted_at", NOON],
        ["spec", "image_size", "32"],
        ["epoch", "1", "train", "0.7", "0.5", "10", "1.5", "0.0001", "2", *USED],
        ["epoch", "1", "val", "0.7", "0.5", "10", "1.5", "0.0001", "2", *[""] * 5],
        ["checkpoint", "3", "1", "2", "0.5", "true", "true", "1000", f"{3:064x}", path],
        ["evaluation", "0.7", "0.75", "4", f"{3:064x}"],
        ["class", "0", "1.0", "0.5", "1", "1"],
        ["class", "1", "0.5", "1.0", "0", "2"],
    ):
        assert row in rows
    assert [row[1] for row in rows if row[0] == "attempt"] == ["1", "2", "3"]


def test_status_of_a_job_in_json(orch: Orch, trained: jobs.Job) -> None:
    report = views.ReportPayload.model_validate_json(orch("status", trained.id, "--json").out)
    assert report.job.doing == "succeeded"
    assert [(epoch.epoch, epoch.split) for epoch in report.epochs] == [(1, "train"), (1, "val")]
    assert report.checkpoints[0].path.startswith("/")
    assert report.evaluation is not None
    assert report.evaluation.confusion == ((1, 1), (0, 2))
    assert report.dataset is not None


def test_status_of_a_failed_job_says_why_and_what_to_do(orch: Orch, store: base.Store) -> None:
    fail(store)
    rows = orch("status", "@last-failed").rows
    assert ["job", "reason", "bad_input"] in rows
    assert ["job", "error", "One class."] in rows
    assert ["job", "hint", "Two are needed."] in rows


def test_status_at_a_glance(orch: Orch, store: base.Store, settings: Any) -> None:
    job = parts.submit(store, spec=specs.parse(DATA))
    heard_of(settings)
    rows = orch("status").rows
    assert ["state", "queued", "1"] in rows
    assert ["broker", "embedded", "away", "No such file or directory"] in rows
    assert ["database", str(settings.home / "orch.db")] in rows
    assert [row[:3] for row in rows if row[0] == "worker"] == [["worker", "worker-a", "active"]]
    assert [row[:3] for row in rows if row[0] == "job"] == [["job", job.id, "queued"]]
    overview = views.OverviewPayload.model_validate_json(orch("status", "--json").out)
    assert overview.states[states.JobState.QUEUED] == 1
    assert overview.workers[0].host == "host-a"
    assert not overview.broker.answers


def test_events_are_the_history_in_order(orch: Orch, trained: jobs.Job) -> None:
    rows = orch("events", trained.id).rows
    assert rows[0] == [NOON, "submitted", "queued", "download", "0", "ada", "", "", "1"]
    assert [row[2] for row in rows if row[1] == "claimed"] == ["running"] * 3
    assert rows[-1][2] == "succeeded"
    lines = orch("events", trained.id, "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [row[1] for row in rows]


def test_logs_hold_all_attempts_without_escape_codes(orch: Orch, trained: jobs.Job) -> None:
    ran = orch("logs", trained.id)
    assert ran.out == "epoch 1\nhalf a line\nevaluated\n"
    assert "is succeeded" in ran.err
    assert orch("logs", trained.id, "-n", "1").out == "evaluated\n"
    assert orch("logs", trained.id, "-n", "0").out == ""
    lines = orch("logs", trained.id, "--json").out.splitlines()
    assert json.loads(lines[0]) == {"schema_version": 1, "job_id": trained.id, "text": "epoch 1"}


def test_logs_are_never_silent(orch: Orch, store: base.Store) -> None:
    waiting = parts.submit(store)
    assert "is queued for download: no attempt yet" in orch("logs", waiting.id).err
    store.cancel(waiting.id, actor="ada")
    failed = fail(store)
    assert "bad_input at stage train, attempt 2: One class." in orch("logs", failed.id).err
    assert orch("logs", failed.id).code == 0
    assert orch("logs", "-f", failed.id).code == 5


@pytest.mark.parametrize("command", ["status", "watch", "logs", "events", "wait", "cancel", "retry"])
def test_an_unknown_job_is_code_3(orch: Orch, store: base.Store, command: str) -> None:
    parts.submit(store)
    ran = orch(command, "nowhere")
    assert (ran.code, ran.out) == (3, "")
    assert "nowhere" in ran.err


def test_an_ambiguous_name_is_code_3_with_the_candidates(orch: Orch, store: base.Store) -> None:
    twins = [parts.submit(store, name="twin").id for _ in range(2)]
    ran = orch("status", "twin")
    assert ran.code == 3
    assert all(twin in ran.err for twin in twins)
