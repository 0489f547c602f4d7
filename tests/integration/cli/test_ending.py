"""Waiting for jobs and steering them: each exit code, each effect."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import jobs, specs, states
from orchestrator.service import follow, views
from orchestrator.store import artifacts, base
from tests.contract import parts
from tests.integration.cli.conftest import Orch


def end(store: base.Store, how: states.JobState) -> jobs.Job:
    """Return a job that has ended in this state."""
    held = parts.training(store, spec=specs.parse({"data": "digits"}))
    if how is states.JobState.CANCELLED:
        store.cancel(held.id, actor="ada")
        return store.finish(held, jobs.Outcome(kind="cancelled"))
    if how is states.JobState.FAILED:
        outcome = jobs.Outcome(kind="failed", reason=states.Reason.DIVERGED, error="The loss is nan.", hint="Lower lr.")
        return store.finish(held, outcome)
    store.record_checkpoint(held, parts.checkpoint(held, 3, accuracy=0.5, epoch=1), parts.epoch_rows(1))
    store.finish(held, parts.DONE)
    return store.finish(parts.claimed(store, states.Stage.EVALUATE), parts.DONE)


ENDS = [(states.JobState.SUCCEEDED, 0), (states.JobState.FAILED, 5), (states.JobState.CANCELLED, 6)]


@pytest.mark.parametrize("command", [("wait",), ("watch",), ("logs", "-f")])
@pytest.mark.parametrize(("state", "code"), ENDS)
def test_the_exit_code_is_the_jobs(
    orch: Orch, store: base.Store, command: tuple[str, ...], state: states.JobState, code: int
) -> None:
    assert orch(*command, end(store, state).id).code == code


def test_wait_prints_each_job_as_it_ended(orch: Orch, store: base.Store) -> None:
    failed = end(store, states.JobState.FAILED)
    done = end(store, states.JobState.SUCCEEDED)
    ran = orch("wait", failed.id, done.id)
    assert ran.rows == [[failed.id, "failed", "diverged", ""], [done.id, "succeeded", "", "0.5"]]
    assert "The loss is nan." in ran.err
    assert "Lower lr." in ran.err
    lines = orch("wait", done.id, "--json").out.splitlines()
    assert views.JobPayload.model_validate_json(lines[0]).id == done.id


def test_a_failure_weighs_more_than_a_cancellation(orch: Orch, store: base.Store) -> None:
    cancelled, failed = end(store, states.JobState.CANCELLED), end(store, states.JobState.FAILED)
    assert orch("wait", cancelled.id, failed.id).code == 5


def test_wait_gives_up_with_code_7_and_leaves_the_job_alone(orch: Orch, store: base.Store) -> None:
    job = parts.submit(store)
    ran = orch("wait", job.id, "--timeout", "0.1")
    assert ran.code == 7
    assert job.id in ran.err
    assert store.get(job.id) == job


def test_watch_in_a_pipe_is_one_line_a_change(orch: Orch, store: base.Store) -> None:
    done = end(store, states.JobState.SUCCEEDED)
    ((when, *row),) = orch("watch", done.id).rows
    assert row == [done.id, "succeeded", "3", "", "0", "", "steps", "0.5", "", ""]
    assert abs(datetime.fromisoformat(when) - datetime.now(UTC)) < timedelta(minutes=1)
    assert when.endswith("Z")
    told = json.loads(orch("watch", done.id, "--json").out)
    assert (told["id"], told["state"], told["schema_version"]) == (done.id, "succeeded", 1)


def test_watch_in_a_pipe_tells_each_change_once_and_steers_no_terminal(
    orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = end(store, states.JobState.SUCCEEDED)
    steps = [jobs.Progress(done=step, total=40, unit="steps", epoch=1 + step // 20, epochs=2) for step in range(1, 41)]
    training = replace(done, state=states.JobState.RUNNING, stage=states.Stage.TRAIN, attempt=2)
    seen = [replace(training, progress=progress) for progress in steps]
    monkeypatch.setattr(follow, "watched", lambda *_, **__: ((job, frozenset[str]()) for job in [*seen, done]))
    ran = orch("watch", done.id)
    assert [row[5] for row in ran.rows] == ["1", "4", "8", "12", "16", "20", "24", "28", "32", "36", "40", "0"]
    assert {row[2] for row in ran.rows} == {"training", "succeeded"}
    assert "\x1b" not in ran.out + ran.err


def test_cancel_ends_a_waiting_job_and_wishes_the_end_of_a_running_one(orch: Orch, store: base.Store) -> None:
    running = parts.training(store, spec=specs.parse({"data": "digits"}))
    waiting = parts.submit(store)
    assert orch("cancel", waiting.id, running.id).rows == [[waiting.id, "cancelled"], [running.id, "cancelling"]]
    assert store.beat(running) is states.Wish.CANCEL
    assert store.events(waiting.id)[-1].actor == "tester"


def test_what_has_ended_cannot_be_cancelled(orch: Orch, store: base.Store) -> None:
    ran = orch("cancel", end(store, states.JobState.SUCCEEDED).id)
    assert (ran.code, ran.out) == (1, "")


def test_pause_sets_aside_and_resume_lets_go_on(orch: Orch, store: base.Store) -> None:
    running = parts.training(store, spec=specs.parse({"data": "digits"}))
    waiting = parts.submit(store)
    assert orch("pause", waiting.id, running.id).rows == [[waiting.id, "paused"], [running.id, "pausing"]]
    assert store.beat(running) is states.Wish.PAUSE
    assert store.events(waiting.id)[-1].actor == "tester"
    ran = orch("resume", waiting.id, running.id)
    assert ran.rows == [[waiting.id, "queued"], [running.id, "training"]]
    assert ran.err.count("The broker is away") == 1  # nobody is rung for a job that runs
    assert orch("resume", waiting.id).code == 1
    told = json.loads(orch("pause", waiting.id, "--json").out)
    assert (told["id"], told["state"]) == (waiting.id, "paused")
    assert orch("pause", end(store, states.JobState.SUCCEEDED).id).code == 1


def artifacts_of(settings: config.Settings, job: jobs.Job) -> Path:
    folder = settings.artifact_dir / job.id
    folder.mkdir(parents=True)
    (folder / "weights").write_text("some")
    return folder


def test_delete_removes_rows_and_files_of_this_host(orch: Orch, store: base.Store, settings: config.Settings) -> None:
    job = end(store, states.JobState.SUCCEEDED)
    folder = artifacts_of(settings, job)
    (settings.artifact_dir / artifacts.ROOT_ID_FILE).write_text(parts.ROOT)
    ran = orch("delete", job.id, "--yes")
    assert (ran.code, ran.rows, ran.err) == (0, [[job.id, "deleted"]], "")
    assert not folder.exists()
    again = orch("delete", job.id, "--yes")
    assert again.code == 3
    assert "was deleted" in again.err
    assert "tester" in again.err


def test_delete_leaves_files_of_another_root_to_its_workers(
    orch: Orch, store: base.Store, settings: config.Settings
) -> None:
    job = end(store, states.JobState.FAILED)
    folder = artifacts_of(settings, job)
    (settings.artifact_dir / artifacts.ROOT_ID_FILE).write_text("another root")
    ran = orch("delete", job.id, "--yes", "--json")
    assert json.loads(ran.out)["left_in"] == [parts.ROOT]
    assert parts.ROOT in ran.err
    assert folder.exists()


def test_delete_without_a_terminal_wants_a_yes(orch: Orch, store: base.Store) -> None:
    job = parts.submit(store)
    ran = orch("delete", job.id)
    assert (ran.code, ran.out) == (2, "")
    assert "Add --yes, or --dry-run" in ran.err
    assert store.get(job.id) == job


def test_delete_refuses_what_runs_and_resolves_all_before_it_begins(orch: Orch, store: base.Store) -> None:
    held, waiting = parts.training(store), parts.submit(store)
    ran = orch("delete", held.id, "--yes")
    assert ran.code == 1
    assert f"orch cancel {held.id}" in ran.err
    assert orch("delete", waiting.id, "nothere0", "--yes").code == 3
    assert store.get(waiting.id) == waiting


def test_retry_queues_what_failed_and_nothing_else(orch: Orch, store: base.Store) -> None:
    failed = end(store, states.JobState.FAILED)
    ran = orch("retry", "@last-failed")
    assert ran.rows == [[failed.id, "queued"]]
    assert "The broker is away" in ran.err
    assert store.get(failed.id).run == 2
    assert orch("retry", failed.id).code == 1
