"""Queries that must not slow down with the number of jobs: what SQLite plans, and how many statements they take."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest
import sqlalchemy
from pydantic import SecretStr

from benchmarks import crowd
from orchestrator import config
from orchestrator.core import dependencies, jobs, limits, states, telling
from orchestrator.store import engine, sql
from tests.contract import parts

State = states.JobState
READING_OR_CHANGING = ("SELECT", "WITH", "UPDATE", "DELETE")


@contextmanager
def watched(store: sql.SqlStore) -> Iterator[list[tuple[str, tuple[object, ...]]]]:
    """Yield the list that fills with the statements that run, and their parameters."""
    seen: list[tuple[str, tuple[object, ...]]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: tuple[object, ...], *_: object) -> None:
        seen.append((statement, parameters))

    listened = store.database._engine
    sqlalchemy.event.listen(listened, "before_cursor_execute", note)
    yield seen
    sqlalchemy.event.remove(listened, "before_cursor_execute", note)


def plans(store: sql.SqlStore, call: Callable[[], object]) -> list[str]:
    """Return how SQLite goes about every SELECT, UPDATE and DELETE of `call`."""
    with watched(store) as seen:
        call()
    changing_or_reading = [(text, values) for text, values in seen if text.startswith(READING_OR_CHANGING)]
    return store.database.read(
        lambda connection: [
            row.detail
            for text, values in changing_or_reading
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
        ]
    )


def _numbered(text: str) -> str:
    """Return a statement whose values have numbers, as PostgreSQL has them, not names."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    return re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text)


def prepared(store: sql.SqlStore, texts: list[str]) -> list[str]:
    """Return how PostgreSQL goes about the SELECT, UPDATE and DELETE statements among these, whatever their values."""
    bare = [_numbered(text) for text in texts if text.startswith(READING_OR_CHANGING)]
    return store.database.read(
        lambda connection: [
            row[0] for text in bare for row in connection.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {text}")
        ]
    )


@pytest.fixture
def postgres_store(settings: config.Settings, postgres_url: str) -> Iterator[sql.SqlStore]:
    with closing(sql.open_store(settings.model_copy(update={"database_url": SecretStr(postgres_url)}))) as opened:
        yield opened


@pytest.fixture
def held(store: sql.SqlStore) -> jobs.Claim:
    parts.submit(store, name="waiting")
    return parts.training(store)


CALLS: dict[str, Callable[[sql.SqlStore, jobs.Claim], object]] = {
    "claim": lambda store, _: parts.claim(store),
    "beat": lambda store, held: store.beat(held),
    "wish": lambda store, held: store.wish(held),
    "checkpoint": lambda store, held: store.record_checkpoint(held, parts.checkpoint(held, 1), parts.epoch_rows(1)),
    "finish": lambda store, held: store.finish(held, parts.DONE),
    "find by prefix": lambda store, held: store.find(held.id[:5]),
    "find by name": lambda store, _: store.find("waiting"),
    "latest": lambda store, _: store.find("@latest"),
    "list by state": lambda store, _: store.jobs(jobs.JobFilter(states=(State.QUEUED, State.FAILED), limit=20)),
    "results": lambda store, held: store.results(held.job.spec_hash),
    "counts": lambda store, _: store.counts(),
    "ahead": lambda store, _: store.ahead(store.find("waiting").id),
    "unblock": lambda store, _: store.unblock(actor="r"),
    "dependencies": lambda store, held: store.dependencies(held.id),
    "leases": lambda store, _: store.leases(),
    "attempts": lambda store, held: store.attempts(held.id),
    "ended attempts": lambda store, held: store.ended_attempts(str(held.job.worker)),
    "events": lambda store, held: store.events(held.id),
    "epochs": lambda store, held: store.epochs(held.id),
    "steps": lambda store, held: store.steps(held.id),
    "checkpoints": lambda store, held: store.checkpoints(held.id),
    "logs": lambda store, held: store.logs(held.id, after=(1, 0)),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_table_is_read_from_end_to_end(store: sql.SqlStore, held: jobs.Claim, name: str) -> None:
    steps = plans(store, lambda: CALLS[name](store, held))
    assert steps
    # "SCAN jobs USING INDEX" in the order of seq, stopped by LIMIT, and the count over an index are fine.
    scans = [step for step in steps if step.startswith("SCAN") and "INDEX" not in step and name != "latest"]
    # Those few that a claim has sought out, those few users, and no table.
    few = {"SCAN users", "SCAN kinds", "SCAN part", "SCAN everyone", "SCAN CONSTANT ROW"}
    assert [step for step in scans if step not in few] == []


def test_a_claim_seeks_and_never_walks_or_sorts(store: sql.SqlStore, held: jobs.Claim) -> None:
    del held
    steps = plans(store, lambda: parts.claim(store, states.Stage.DOWNLOAD))
    of_jobs = [step for step in steps if re.search(r" (jobs|later|other|active|claimed)\b", step)]
    first = "ix_jobs_claim (state=? AND stage=? AND blocked=? AND submitted_by=? AND demand=? AND artifact_root=?)"
    assert any(first in step for step in of_jobs)
    assert all(" USING " in step and step.startswith("SEARCH") for step in of_jobs)
    assert [step for step in steps if "TEMP B-TREE" in step] == []


def test_postgresql_seeks_what_it_claims_as_well(postgres_store: sql.SqlStore) -> None:
    crowd.fill(postgres_store, 3000)
    with watched(postgres_store) as seen:
        assert parts.claim(postgres_store, states.Stage.TRAIN, root="bench")
    # But those of the few checkpoints of one job, which are sorted.
    explained = prepared(postgres_store, [text for text, _ in seen if "FROM checkpoints" not in text])
    assert sum("Index Scan using ix_jobs_claim" in step for step in explained) == 3  # two firsts, and the one taken
    assert [step for step in explained if re.search(r"Sort|Bitmap|Seq Scan on jobs", step)] == []


def test_list_by_state_walks_its_index_in_order(store: sql.SqlStore, held: jobs.Claim) -> None:
    steps = plans(store, lambda: CALLS["list by state"](store, held))
    assert steps == ["SEARCH jobs USING INDEX ix_jobs_state_seq (state=?)"] * 2


@pytest.mark.parametrize("look", ["hosts", "make_room"])
def test_what_runs_is_sought_before_its_attempts(store: sql.SqlStore, look: str) -> None:
    crowd.fill(store, 2000)  # with statistics, which may say that little is known of what runs
    crowd.train(store)
    looks: dict[str, Callable[[], object]] = {
        "hosts": store.hosts,
        "make_room": lambda: store.make_room(actor="r", stay=timedelta()),
    }
    steps = [step for step in plans(store, looks[look]) if re.search(r" (jobs|attempts)\b", step)]
    assert steps
    assert [step for step in steps if not step.startswith("SEARCH")] == []


def test_postgresql_seeks_what_runs_as_well(postgres_store: sql.SqlStore) -> None:
    crowd.fill(postgres_store, 3000)
    with watched(postgres_store) as seen:
        postgres_store.hosts()
    assert [step for step in prepared(postgres_store, [text for text, _ in seen]) if "Seq Scan on jobs" in step] == []


def test_results_of_a_spec_walk_their_index_in_order(store: sql.SqlStore, held: jobs.Claim) -> None:
    steps = plans(store, lambda: CALLS["results"](store, held))
    assert steps == ["SEARCH jobs USING INDEX ix_jobs_spec_hash (spec_hash=? AND state=?)"]


def test_counts_touch_an_index_alone(store: sql.SqlStore, held: jobs.Claim) -> None:
    steps = plans(store, lambda: CALLS["counts"](store, held))
    assert [step for step in steps if "jobs" in step and "COVERING INDEX" not in step] == []


@pytest.mark.parametrize(
    ("name", "statements"),
    [("beat", 2), ("wish", 2), ("claim", 9), ("steps", 2), ("counts", 3), ("list by state", 3)],
)
def test_statements_are_few(store: sql.SqlStore, held: jobs.Claim, name: str, statements: int) -> None:
    """With BEGIN: a claim looks (3), then begins, looks at the blocked and the users, takes, and writes (6)."""
    with watched(store) as seen:
        CALLS[name](store, held)
    assert len(seen) <= statements, [text for text, _ in seen]


def test_who_ends_or_begins_anew_looks_at_its_own_dependants_alone(store: sql.SqlStore) -> None:
    crowd.fill(store, 500)  # with statistics, and jobs that wait for others
    first = parts.submit(store)
    parts.submit(store, after=(dependencies.Dependency(needs=first.id, rule=states.After.OK),))
    steps = plans(store, lambda: store.cancel(first.id, actor="ada"))
    steps += plans(store, lambda: store.retry(first.id, actor="ada"))
    assert [step for step in steps if step.startswith("SCAN")] == []


def test_many_that_are_let_go_take_no_statement_each(store: sql.SqlStore) -> None:
    first = parts.submit(store)
    after = (dependencies.Dependency(needs=first.id, rule=states.After.ANY),)
    for _ in range(20):
        parts.submit(store, after=after)
    store.cancel(first.id, actor="ada")
    with watched(store) as seen:
        assert store.unblock(actor="r") == 20
    assert len(seen) <= 9, [text for text, _ in seen]


def test_what_a_worker_has_ended_is_read_in_order(store: sql.SqlStore, held: jobs.Claim) -> None:
    steps = plans(store, lambda: CALLS["ended attempts"](store, held))
    assert steps == ["SEARCH attempts USING INDEX ix_attempts_ended (worker=? AND ended_at>?)"]


def test_a_server_has_longer_for_the_end_of_a_job(
    postgres_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = parts.training(postgres_store)
    monkeypatch.setattr(engine, "PATIENCE", 3.5)
    with watched(postgres_store) as seen:
        postgres_store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    assert "SET LOCAL statement_timeout = 18000" in [text for text, _ in seen]
    parts.submit(postgres_store, after=(dependencies.Dependency(needs=held.id, rule=states.After.OK),))
    with watched(postgres_store) as seen:
        assert postgres_store.unblock(actor="r") == 1  # which ends, since what it waits for has failed
    assert "SET LOCAL statement_timeout = 18000" in [text for text, _ in seen]


def test_who_writes_an_event_of_a_notice_holds_its_job(postgres_store: sql.SqlStore) -> None:
    told = telling.Telling(targets=("https://hooks.example.org/x",))
    postgres_store.cancel(parts.submit(postgres_store, notify=told).id, actor="ada")
    notice = postgres_store.next_notice()
    assert notice is not None
    with watched(postgres_store) as seen:
        postgres_store.next_notice(telling.Answer(notice=notice, how="told"))
    assert [text for text, _ in seen if "FROM jobs" in text and text.rstrip().endswith("FOR UPDATE")]


def test_a_server_is_asked_six_times_for_a_claim(postgres_store: sql.SqlStore) -> None:
    """Nobody waits for a claim there: it looks no sooner than it takes."""
    parts.submit(postgres_store)
    with watched(postgres_store) as seen:
        assert parts.claim(postgres_store)
    assert [text.split()[0] for text, _ in seen] == ["SET", "SELECT", "WITH", "UPDATE", "INSERT", "INSERT"]


def test_what_a_job_has_done_is_asked_where_it_has_done_something(postgres_store: sql.SqlStore) -> None:
    held = parts.training(postgres_store)
    postgres_store.record_checkpoint(held, parts.checkpoint(held, 1))
    postgres_store.finish(held, parts.DRAINED)
    with watched(postgres_store) as seen:
        assert parts.claimed(postgres_store, states.Stage.TRAIN).checkpoints
    assert [text.split()[0] for text, _ in seen[-3:]] == ["INSERT", "SELECT", "SELECT"]


def test_idle_slot_takes_no_lock(store: sql.SqlStore) -> None:
    with watched(store) as seen:
        assert parts.claim(store) is None
    assert "BEGIN IMMEDIATE" not in [text for text, _ in seen]


def test_idle_slot_under_limits_takes_no_lock_of_a_server(postgres_store: sql.SqlStore) -> None:
    with watched(postgres_store) as seen:
        held = postgres_store.claim(
            worker=parts.identity(),
            device="cpu",
            stages=parts.ALL_STAGES,
            artifact_root=parts.ROOT,
            limits=limits.Limits(users={limits.OTHERS: 1}),
        )
    assert held is None
    assert [text for text, _ in seen if "advisory" in text] == []
