"""`orch clone`, and what `list` chooses, sorts and shows."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core import jobs, specs, states
from orchestrator.service import clone
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch


def test_a_clone_is_the_same_but_for_what_is_said(orch: Orch, store: sql.SqlStore) -> None:
    spec = specs.parse({"data": "digits", "network": "densenet_tiny", "lr": 0.01, "epochs": 3})
    first = parts.submit(store, spec=spec, name="first", tags=("a",), priority=4)
    copy = store.get(orch("clone", first.id, "--lr", "0.002", "--tag", "b", "-q").out.strip())
    assert copy.spec == first.spec.model_copy(update={"lr": 0.002})
    assert (copy.parent, copy.name, copy.tags, copy.priority) == (first.id, None, ("a", "b"), 4)
    assert (copy.state, copy.attempt, copy.start_step, copy.user) == ("queued", 0, None, "tester")
    plain = store.get(orch("clone", "first", "-q", "--name", "second").out.strip())
    assert (plain.spec_hash, plain.name) == (first.spec_hash, "second")


def test_what_a_name_stands_for_is_not_taken_along() -> None:
    small = specs.parse({"network": "densenet_tiny", "epochs": 3})
    other = specs.parse({**clone.chosen(small), "network": "densenet169"})
    assert other == specs.parse({"network": "densenet169", "epochs": 3})


@pytest.mark.parametrize(("words", "code"), [(("nothere0",), 3), (("first", "--lr", "-1"), 2)])
def test_a_clone_that_cannot_be_leaves_nothing(
    orch: Orch, store: sql.SqlStore, words: tuple[str, ...], code: int
) -> None:
    parts.submit(store, name="first")
    ran = orch("clone", *words)
    assert (ran.code, ran.out) == (code, "")
    assert len(store.jobs(jobs.JobFilter())) == 1


def test_a_clone_says_what_a_submit_says(orch: Orch, store: sql.SqlStore) -> None:
    parts.submit(store, name="first")
    assert orch("clone", "first").err == orch("submit", "--data", "digits").err != ""


def test_a_clone_waits_for_what_it_is_told(orch: Orch, store: sql.SqlStore) -> None:
    first = parts.submit(store, name="first")
    copy = store.get(orch("clone", "first", "--after", "first:any", "--not-before", "+2h", "-q").out.strip())
    assert [(one.needs, one.rule) for one in store.dependencies(copy.id)] == [(first.id, states.After.ANY)]
    assert copy.start_after is not None
    assert timedelta(hours=1) < copy.start_after - datetime.now(UTC) < timedelta(hours=2)


def test_a_dry_run_of_a_clone_shows_all_of_it_and_queues_nothing(orch: Orch, store: sql.SqlStore) -> None:
    first = parts.submit(store, name="first")
    ran = orch("clone", "first", "--lr", "0.002", "--after", "first", "--dry-run")
    assert ran.code == 0
    assert {("lr", "0.002", "flag"), ("data", first.spec.data, f"job {first.id}")} <= {tuple(row) for row in ran.rows}
    assert f"If you submit it now: it is queued for download, and waits for {first.id}." in ran.err
    assert orch("clone", "first", "--after", "nobody", "--dry-run").code == 3
    assert len(store.jobs(jobs.JobFilter())) == 1


def test_who_cannot_be_told_is_blamed_on_the_setting_that_names_them(
    orch: Orch, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.submit(store, name="first")
    for variable, value in (("ORCH_NOTIFY", "nowhere"), ("ORCH_NOTIFY_ON", "sunday")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            for words in (("clone", "first"), ("submit", "--data", "digits")):
                ran = orch(*words)
                assert (ran.code, f"why: {variable} says so" in ran.err) == (2, True), ran.err
    given = orch("submit", "--data", "digits", "--notify", "nowhere")
    assert (given.code, "says so" in given.err) == (2, False)


def test_list_by_user_column_and_order(orch: Orch, store: sql.SqlStore) -> None:
    ids = {
        name: parts.submit(store, user=user, name=name, priority=priority).id
        for name, user, priority in (("x", "ada", 1), ("y", "bob", 3), ("z", "ada", 2))
    }
    parts.overwrite(store, ids["x"], best_accuracy=0.5)
    parts.overwrite(store, ids["z"], best_accuracy=0.75)
    assert orch("list", "--user", "ada", "--columns", "name,priority").rows == [["z", "2"], ["x", "1"]]
    assert orch("list", "--sort", "-best", "--columns", "name").rows == [["z"], ["x"], ["y"]]
    assert orch("list", "--sort", "-val_accuracy", "--columns", "name").rows == [["z"], ["x"], ["y"]]
    assert orch("list", "-n", "2", "--sort", "priority", "--columns", "name").rows == [["x"], ["z"]]
    assert orch("list", "--columns", "colour").code == 2
    assert "priority" in orch("list", "--sort", "colour").err
    assert orch("list", "--watch").code == 2
