"""Steering many jobs at once, and changing what is no state: priority, tags, notes."""

import json
import time

import pytest

from benchmarks import crowd
from orchestrator import errors
from orchestrator.core import jobs, specs, states, verbs
from orchestrator.store import sql, steering
from tests.contract import parts
from tests.integration.cli.conftest import Orch

State = states.JobState


def state_of(store: sql.SqlStore, *ids: str) -> list[states.JobState]:
    return [store.get(job_id).state for job_id in ids]


def test_many_are_cancelled_by_tag_and_user(orch: Orch, store: sql.SqlStore) -> None:
    mine = [parts.submit(store, tags=("sweep",)).id for _ in range(3)]
    others = [parts.submit(store, tags=("sweep",), user="bob").id, parts.submit(store).id]
    ran = orch("cancel", "--tag", "sweep", "--user", "ada", "--yes")
    assert (ran.code, ran.rows) == (0, [[job_id, "cancelled"] for job_id in mine])
    assert "3 of 3 jobs changed" in ran.err
    assert state_of(store, *others) == [State.QUEUED] * 2
    assert store.events(mine[0])[-1].actor == "tester"


def test_a_dry_run_changes_nothing(orch: Orch, store: sql.SqlStore) -> None:
    ids = [parts.submit(store).id for _ in range(2)]
    ran = orch("cancel", "--state", "queued", "--dry-run")
    assert [row[0] for row in ran.rows] == ids
    assert "2 jobs: nothing was changed" in ran.err
    assert state_of(store, *ids) == [State.QUEUED] * 2


def test_without_a_terminal_many_want_a_yes(orch: Orch, store: sql.SqlStore) -> None:
    job = parts.submit(store)
    ran = orch("cancel", "--state", "queued")
    assert (ran.code, ran.out) == (2, "")
    assert "1 job" in ran.err
    assert "--yes" in ran.err
    assert store.get(job.id) == job


@pytest.mark.parametrize(
    "words", [("cancel",), ("cancel", "abc", "--tag", "x"), ("tag", "abc"), ("priority", "abc", "high")]
)
def test_a_command_that_says_too_little_or_too_much_is_code_2(
    orch: Orch, store: sql.SqlStore, words: tuple[str, ...]
) -> None:
    parts.submit(store, name="abc")
    assert orch(*words).code == 2


def test_nothing_to_do_is_no_failure(orch: Orch, store: sql.SqlStore) -> None:
    parts.submit(store)
    ran = orch("cancel", "--tag", "nowhere")
    assert (ran.code, ran.out) == (0, "")


def test_what_is_refused_is_said_and_the_rest_is_done(orch: Orch, store: sql.SqlStore) -> None:
    done, waiting = parts.submit(store), parts.submit(store)
    store.cancel(done.id, actor="ada")
    ran = orch("pause", done.id, waiting.id)
    assert (ran.code, ran.rows) == (1, [[waiting.id, "paused"]])
    assert f"Job {done.id} has been cancelled" in ran.err


def test_pause_and_resume_many(orch: Orch, store: sql.SqlStore) -> None:
    running = parts.training(store, tags=("x",))
    waiting = parts.submit(store, tags=("x",))
    assert orch("pause", "--tag", "x", "-y").rows == [[running.id, "pausing"], [waiting.id, "paused"]]
    assert orch("resume", "--tag", "x", "-y").rows == [[waiting.id, "queued"]]


def test_many_are_extended_and_what_cannot_be_is_said(orch: Orch, store: sql.SqlStore) -> None:
    spec = specs.JobSpec(schedule="cosine", epochs=2)
    jobs = [parts.submit(store, tags=("x",), spec=spec), parts.submit(store, tags=("x",))]
    waiting = parts.submit(store)
    for job in jobs:
        store.cancel(job.id, actor="ada")
    ran = orch("extend", "--tag", "x", "--epochs", "5", "--yes")
    assert (ran.code, ran.rows) == (1, [[jobs[0].id, "queued"]])
    assert f"{jobs[0].id}: schedule cosine go by 5 epochs" in " ".join(ran.err.split())
    assert f"Job {jobs[1].id} has 5 epochs: 5 are no more" in " ".join(ran.err.split())
    refused = orch("extend", waiting.id, "--epochs", "9")
    assert (refused.code, "only a job that has ended" in refused.err) == (1, True)
    assert orch("extend", jobs[1].id, "--epochs", "100001").code == 1


def test_many_are_deleted_but_none_that_runs(orch: Orch, store: sql.SqlStore) -> None:
    running = parts.training(store, tags=("x",))
    ids = [parts.submit(store, tags=("x",)).id for _ in range(2)]
    assert [row[0] for row in orch("delete", "--tag", "x", "--dry-run").rows] == ids
    asked = orch("delete", "--tag", "x")
    assert (asked.code, "2 jobs" in asked.err) == (2, True)
    assert {job.id for job in store.jobs(jobs.JobFilter())} == {running.id, *ids}
    ran = orch("delete", "--tag", "x", "--yes")
    assert (ran.code, ran.rows) == (0, [[job_id, "deleted"] for job_id in reversed(ids)])
    assert "2 of 2 jobs deleted" in ran.err
    refused = orch("delete", "--state", "running", "--yes")
    assert (refused.code, "cannot be deleted" in refused.err) == (1, True)


def test_retry_what_failed_for_a_reason(orch: Orch, store: sql.SqlStore) -> None:
    for reason in (states.Reason.DIVERGED, states.Reason.BAD_INPUT):
        parts.submit(store, name=str(reason))
        store.finish(parts.claimed(store), parts.failed(reason))
    parts.submit(store, name="cancelled")
    store.cancel(store.find("cancelled").id, actor="ada")
    other = orch("retry", "--failed", "--state", "cancelled", "--yes")
    assert (other.code, "not both" in other.err) == (2, True)
    ran = orch("retry", "--failed", "--state", "failed", "--reason", "diverged", "--yes")
    assert ran.rows == [[store.find("diverged").id, "queued"]]
    assert "The broker is away" in ran.err
    assert len(orch("retry", "--failed", "--yes").rows) == 1
    assert len(orch("retry", "--user", "ada", "--yes").rows) == 1


def test_priority_moves_a_job_in_the_queue(orch: Orch, store: sql.SqlStore) -> None:
    first, second = parts.submit(store), parts.submit(store)
    assert orch("priority", second.id, "5").rows == [[second.id, "queued"]]
    assert store.ahead(first.id) == 1
    assert (store.events(second.id)[-1].kind, store.events(second.id)[-1].detail) == ("prioritised", "priority 0 to 5")
    assert parts.claimed(store).id == second.id
    assert orch("priority", first.id, "1001").code == 2
    assert orch("priority", first.id, "--", "-3").code == 0
    assert store.get(first.id).priority == -3
    store.cancel(first.id, actor="ada")
    assert orch("priority", first.id, "1").code == 1


def test_tags_are_added_and_removed(orch: Orch, store: sql.SqlStore) -> None:
    job = parts.submit(store, tags=("a", "b"))
    assert orch("tag", job.id, "--add", "c", "--add", "a", "--remove", "b").code == 0
    assert store.get(job.id).tags == ("a", "c")
    assert store.events(job.id)[-1].detail == "tags: a, c"
    before = len(store.events(job.id))
    assert orch("tag", "--tag", "c", "--add", "c", "--yes").code == 0
    assert len(store.events(job.id)) == before  # nothing changed
    assert orch("tag", job.id, "--add", "\n").code == 2


def test_a_note_is_kept_and_shown(orch: Orch, store: sql.SqlStore) -> None:
    job = parts.submit(store)
    assert orch("note", job.id, "the baseline").code == 0
    assert json.loads(orch("status", job.id, "--json").out)["job"]["note"] == "the baseline"
    assert store.events(job.id)[-1].detail == "the baseline"
    assert orch("note", job.id, "").code == 0
    assert store.get(job.id).note is None
    assert orch("note", job.id, "\x1b[31m").code == 2
    assert orch("note", "nothere0", "x").code == 3


def test_a_deletion_that_stops_half_way_says_how_many_have_gone(
    orch: Orch, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [parts.submit(store, tags=("x",)).id for _ in range(3)]
    deleted = sql.SqlStore.delete

    def stopping(it: sql.SqlStore, job_id: str, *, actor: str) -> tuple[str, ...]:
        if job_id == ids[0]:
            raise errors.DatabaseUnavailable
        return deleted(it, job_id, actor=actor)

    monkeypatch.setattr(sql.SqlStore, "delete", stopping)
    ran = orch("delete", "--tag", "x", "--yes")
    assert (ran.code, ran.rows) == (4, [[ids[2], "deleted"], [ids[1], "deleted"]])
    assert "2 of 3 jobs deleted." in ran.err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, errors.DatabaseUnavailable])
def test_what_stops_half_way_says_what_it_has_done(
    orch: Orch, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    ids = [parts.submit(store, tags=("x",)).id for _ in range(5)]
    steered = sql.SqlStore._steer

    def stopping(it: sql.SqlStore, change: verbs.Change, portion: list[str], actor: str) -> list[verbs.Changed]:
        if ids[-1] in portion:
            raise stop
        return steered(it, change, portion, actor)

    monkeypatch.setattr(steering, "BATCH", 2)
    monkeypatch.setattr(sql.SqlStore, "_steer", stopping)
    ran = orch("cancel", "--tag", "x", "--yes")
    assert (ran.code, ran.rows) == (
        130 if stop is KeyboardInterrupt else 4,
        [[job_id, "cancelled"] for job_id in ids[:4]],
    )
    assert "4 of 5 jobs changed." in ran.err
    assert state_of(store, *ids) == [State.CANCELLED] * 4 + [State.QUEUED]


def test_hundreds_of_jobs_are_cancelled_in_a_moment(any_store: sql.SqlStore) -> None:
    crowd.fill(any_store, 600)
    ids = [job.id for job in any_store.jobs(jobs.JobFilter(states=(State.QUEUED,), limit=400))]
    began = time.process_time()
    done = list(any_store.steer(verbs.Change(verb=verbs.Verb.CANCEL), ids, actor="ada"))
    took = time.process_time() - began
    assert {one.job.state for one in done if one.job} == {State.CANCELLED}
    assert len(done) == 400
    assert any_store.counts().states[State.CANCELLED] == 400
    assert parts.kinds(any_store, ids[-1])[-1] == "cancelled"
    assert took < 5  # seconds of this process; half a one at most on a quiet machine
