import dataclasses

from orchestrator.core import provenance
from orchestrator.store import attemptmodels, sql
from tests.contract import parts

SOURCE = provenance.Source(
    commit="c" * 40,
    branch="größer",
    dirty=True,
    diff="+ä\n",
    diff_sha256="d" * 64,
    diff_bytes=2**40,
    remark="masked",
)


def test_where_a_job_comes_from_is_kept_whole(any_store: sql.SqlStore) -> None:
    whole = provenance.Provenance(origins={"lr": "flag", "epochs": "job.toml"}, source=SOURCE)
    job = parts.submit(any_store, provenance=whole)
    assert any_store.provenance(job.id) == whole
    without_git = provenance.Provenance(origins={"lr": "flag"})
    assert any_store.provenance(parts.submit(any_store, provenance=without_git).id) == without_git


def test_of_a_job_that_nothing_was_said_of_nothing_is_known(any_store: sql.SqlStore) -> None:
    assert any_store.provenance(parts.submit(any_store).id) == provenance.UNKNOWN


def test_what_no_database_can_hold_is_replaced(any_store: sql.SqlStore) -> None:
    odd = provenance.Provenance(source=provenance.Source(diff="+\0\udcff\n"))
    kept = provenance.Source(diff="+\ufffd\ufffd\ufffd\ufffd\n")
    assert any_store.provenance(parts.submit(any_store, provenance=odd).id).source == kept


def test_an_attempt_keeps_what_it_trained_with(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_environment(held, parts.ENVIRONMENT)
    assert [attempt.environment for attempt in any_store.attempts(held.id)] == [None, parts.ENVIRONMENT]


def test_what_a_later_orch_says_of_an_attempt_hides_nothing_of_it(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    later = {**dataclasses.asdict(parts.ENVIRONMENT), "invented_later": 1}
    mine = attemptmodels.attempts.update().where(attemptmodels.attempts.c.attempt == held.attempt)
    any_store.database.write(lambda connection: connection.execute(mine.values(environment=later)))
    assert any_store.attempts(held.id)[-1].environment == parts.ENVIRONMENT
