from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy

from orchestrator import errors
from orchestrator.core import dependencies, ids, jobs, specs, states, telling, verbs
from orchestrator.store import claims, jobmodels, sql
from tests.conftest import HandClock
from tests.contract import parts


@pytest.fixture
def three(any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> sql.SqlStore:
    """A store with the jobs abc00001 (named cats), abc00002 (named dogs) and zzz00003 (named dogs)."""
    drawn = iter(["abc00001", "abc00002", "zzz00003"])
    monkeypatch.setattr(ids, "new_id", lambda: next(drawn))
    for name in ("cats", "dogs", "dogs"):
        parts.submit(any_store, name=name)
    return any_store


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("abc00001", "abc00001"),
        ("ABC0000l", "abc00001"),  # typed from paper: upper case, l for 1
        (" cats ", "abc00001"),
        ("zzz", "zzz00003"),
        ("abc00002", "abc00002"),
        ("@latest", "zzz00003"),
    ],
)
def test_one_job_answers(three: sql.SqlStore, text: str, found: str) -> None:
    assert three.find(text).id == found


@pytest.mark.parametrize("text", ["abd", "zz", "", "zzz000034", "cat", "@last-failed", "%", "a_c"])
def test_nothing_answers(three: sql.SqlStore, text: str) -> None:
    with pytest.raises(errors.NotFound) as caught:
        three.find(text)
    assert not isinstance(caught.value, errors.Ambiguous)
    assert "orch list" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["\udcff", "zero\0byte"])  # a byte of the command line that was no UTF-8; a script
def test_what_can_be_no_text_of_a_database_is_a_mistake_of_who_asks(any_store: sql.SqlStore, text: str) -> None:
    for look in (lambda: any_store.find(text), lambda: any_store.wish_worker(text, states.WorkerWish.DRAIN)):
        with pytest.raises((errors.UsageError, errors.NotFound)):
            look()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("zz", "by 3 or more of its characters"),
        ("@last-failed", "No job is failed"),
        ("@latst", "there are @latest and @last-failed"),
        ("zzz1", None),
        ("?!", None),  # no id begins so
    ],
)
def test_a_word_that_can_mean_no_job_is_told_why(three: sql.SqlStore, text: str, why: str | None) -> None:
    with pytest.raises(errors.NotFound) as caught:
        three.find(text)
    assert (why is None and caught.value.why is None) or str(why) in str(caught.value.why)


def test_the_latest_of_no_jobs_is_none(any_store: sql.SqlStore) -> None:
    with pytest.raises(errors.NotFound) as caught:
        any_store.find("@latest")
    assert caught.value.why == "No job has been submitted yet."


@pytest.mark.parametrize(
    ("text", "candidates"),
    [("abc", {"abc00001", "abc00002"}), ("dogs", {"abc00002", "zzz00003"})],
)
def test_several_jobs_answer(three: sql.SqlStore, text: str, candidates: set[str]) -> None:
    with pytest.raises(errors.Ambiguous) as caught:
        three.find(text)
    assert set(caught.value.candidates) == candidates


def test_exact_name_wins_over_a_prefix(three: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "new_id", lambda: "qqq00004")
    parts.submit(three, name="zzz")
    assert three.find("zzz").id == "qqq00004"


def test_last_failed_is_the_one_that_failed_last(any_store: sql.SqlStore, clock: HandClock) -> None:
    older, newer = parts.submit(any_store), parts.submit(any_store)
    held = {claim.id: claim for claim in (parts.claimed(any_store), parts.claimed(any_store))}
    for job in (newer, older):
        clock.move(seconds=1)
        any_store.finish(held[job.id], parts.failed(states.Reason.BAD_INPUT))
    assert any_store.find("@last-failed").id == older.id


def test_get_takes_whole_ids_only(three: sql.SqlStore) -> None:
    with pytest.raises(errors.NotFound):
        three.get("abc0000")


def test_list_is_newest_first_and_limited(three: sql.SqlStore) -> None:
    assert [job.id for job in three.jobs(jobs.JobFilter(limit=2))] == ["zzz00003", "abc00002"]
    assert len(three.jobs(jobs.JobFilter(limit=10**30))) == 3  # beyond the integers of any database
    first = jobs.JobFilter(states=(states.JobState.PAUSED, states.JobState.QUEUED), limit=2, oldest_first=True)
    assert [job.seq for job in three.jobs(first)] == sorted(job.seq for job in three.jobs(jobs.JobFilter()))[:2]


def test_list_filters(any_store: sql.SqlStore) -> None:
    tagged = parts.submit(any_store, tags=("night", "odd, x"))
    plain = parts.submit(any_store, user="bob")
    cancelled = any_store.cancel(parts.submit(any_store, tags=("nightly",)).id, actor="ada")

    def listed(**which: object) -> list[str]:
        return [job.id for job in any_store.jobs(jobs.JobFilter(**which))]  # type: ignore[arg-type] # one field each

    assert listed(tags=("night",)) == [tagged.id]
    assert listed(tags=("night", "odd, x")) == [tagged.id]
    assert listed(tags=("odd",)) == []
    assert listed(user="bob") == [plain.id]
    assert listed(ids=(plain.id, tagged.id)) == [plain.id, tagged.id]
    assert listed(states=(states.JobState.CANCELLED,)) == [cancelled.id]
    assert listed(states=(states.JobState.QUEUED, states.JobState.CANCELLED), limit=2) == [cancelled.id, plain.id]


def test_a_tag_of_an_earlier_version_is_found_by_itself_alone(any_store: sql.SqlStore) -> None:
    """What is refused today may stand in old rows: it hits nothing but what it says, and people can take it away."""
    old = ('run 12"b', "back\\slash", "[", " blank")
    job = parts.submit(any_store, tags=("b, c",))
    rows = sqlalchemy.update(jobmodels.jobs).values(tags=[*old, "b, c"])
    any_store.database.write(lambda connection: connection.execute(rows))

    def found(tag: str) -> bool:
        return bool(any_store.jobs(jobs.JobFilter(tags=(tag,))))

    assert all(map(found, (*old, "b, c")))
    assert not any(map(found, ("b", "c", "slash", "blank", "run 12", "]", ",")))
    change = verbs.Change(verb=verbs.Verb.TAG, add=("new",), remove=old)
    (changed,) = any_store.steer(change, [job.id], actor="ada")
    assert changed.job is not None
    assert changed.job.tags == ("b, c", "new")


def test_counts_tell_what_could_be_claimed_now(any_store: sql.SqlStore, clock: HandClock) -> None:
    for _ in range(4):
        parts.submit(any_store)
    any_store.cancel(any_store.find("@latest").id, actor="ada")
    any_store.finish(parts.claimed(any_store), parts.DONE)
    held = parts.claimed(any_store, states.Stage.DOWNLOAD)
    any_store.finish(held, parts.failed(states.Reason.UNREACHABLE))
    counts = any_store.counts()
    assert counts.states[states.JobState.QUEUED] == 3
    assert counts.states[states.JobState.CANCELLED] == 1
    assert counts.states[states.JobState.RUNNING] == 0
    assert counts.eligible == {states.Stage.DOWNLOAD: 1, states.Stage.TRAIN: 1, states.Stage.EVALUATE: 0}
    assert any_store.counts(eligible=False) == replace(counts, eligible={})
    clock.move(minutes=10)
    assert any_store.counts().eligible[states.Stage.DOWNLOAD] == 2


def test_a_job_that_is_claimed_while_its_place_is_counted_still_has_one(
    any_store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, standing = parts.submit(any_store), claims.standing

    def claimed_meanwhile(*given: Any) -> Any:
        parts.claimed(any_store)
        return standing(*given)

    monkeypatch.setattr(claims, "standing", claimed_meanwhile)
    assert any_store.ahead(job.id) == 0


def test_ahead_counts_who_is_claimed_earlier(any_store: sql.SqlStore, clock: HandClock) -> None:
    first = parts.submit(any_store)
    clock.move(minutes=1)
    second = parts.submit(any_store)
    urgent = parts.submit(any_store, priority=1)
    assert [any_store.ahead(job.id) for job in (urgent, first, second)] == [0, 1, 2]
    held = parts.claimed(any_store)
    assert (held.id, any_store.ahead(urgent.id), any_store.ahead(second.id)) == (urgent.id, 0, 1)
    any_store.finish(held, parts.failed(states.Reason.UNREACHABLE))
    assert any_store.ahead(second.id) == 1  # who backs off is not ahead


def test_a_rehearsal_stands_where_the_job_would_and_leaves_nothing(any_store: sql.SqlStore, clock: HandClock) -> None:
    parts.submit(any_store, user="bob")
    needed = parts.submit(any_store)
    clock.move(minutes=1)
    wanted = parts.new_job(
        idempotency_key="once",
        after=(dependencies.Dependency(needs=needed.id, rule=states.After.OK),),
        notify=telling.Telling(targets=("https://example.org/hook",), on=telling.occasions(["finished"])),
    )
    imagined, needs, standing = any_store.rehearse(wanted)
    with pytest.raises(errors.NotFound):
        any_store.get(imagined.id)
    assert len(any_store.jobs(jobs.JobFilter())) == 2
    stored, is_new = any_store.submit(wanted)
    assert is_new
    assert needs == any_store.dependencies(stored.id) != []
    assert standing == any_store.standing(stored.id)
    assert standing.before == {"bob": 1, "ada": 1}
    assert (imagined.state, imagined.blocked) == (stored.state, True)
    assert any_store.rehearse(wanted)[0] == stored
    with pytest.raises(errors.IdempotencyConflict):
        any_store.rehearse(replace(wanted, spec=specs.parse({"epochs": 7})))
