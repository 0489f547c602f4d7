"""Waiting for jobs and steering them: each exit code, each effect."""

import json

import pytest

from orchestrator.core import jobs, specs, states
from orchestrator.service import views
from orchestrator.store import base
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
    assert orch("watch", done.id).rows == [[done.id, "succeeded", "3", "", "0", "", "steps", "0.5", "", ""]]
    told = json.loads(orch("watch", done.id, "--json").out)
    assert (told["id"], told["state"], told["schema_version"]) == (done.id, "succeeded", 1)


def test_cancel_ends_a_waiting_job_and_wishes_the_end_of_a_running_one(orch: Orch, store: base.Store) -> None:
    running = parts.training(store, spec=specs.parse({"data": "digits"}))
    waiting = parts.submit(store)
    assert orch("cancel", waiting.id, running.id).rows == [[waiting.id, "cancelled"], [running.id, "cancelling"]]
    assert store.beat(running) is states.Wish.CANCEL
    assert store.events(waiting.id)[-1].actor == "tester"


def test_what_has_ended_cannot_be_cancelled(orch: Orch, store: base.Store) -> None:
    ran = orch("cancel", end(store, states.JobState.SUCCEEDED).id)
    assert (ran.code, ran.out) == (1, "")


def test_retry_queues_what_failed_and_nothing_else(orch: Orch, store: base.Store) -> None:
    failed = end(store, states.JobState.FAILED)
    ran = orch("retry", "@last-failed")
    assert ran.rows == [[failed.id, "queued"]]
    assert "The broker is away" in ran.err
    assert store.get(failed.id).run == 2
    assert orch("retry", failed.id).code == 1
