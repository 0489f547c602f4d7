"""Following a job: nothing missed, nothing twice, an end."""

import functools
import threading
from collections.abc import Callable, Iterator

import pytest

from orchestrator import config, errors
from orchestrator.core import jobs, specs, states
from orchestrator.service import follow
from orchestrator.store import base
from tests.conftest import HandClock
from tests.contract import parts

FAST = 0.01


@pytest.fixture
def held(store: base.Store) -> jobs.Claim:
    return parts.training(store, spec=specs.parse({"data": "digits"}))


def write(store: base.Store, held: jobs.Claim, *texts: str, first: int = 0) -> None:
    for number, text in enumerate(texts, start=first):
        store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=number, text=text))


def test_lines_are_put_together_across_pieces_and_kept_apart_across_attempts(
    store: base.Store, held: jobs.Claim
) -> None:
    write(store, held, "one\ntw", "o\nunfin", "ished")
    store.finish(held, parts.DRAINED)
    write(store, parts.claimed(store, states.Stage.TRAIN), "next\n")
    assert list(follow.lines(store, held.id)) == ["one", "two", "unfinished", "next"]
    assert list(follow.lines(store, held.id, last=2)) == ["unfinished", "next"]
    assert list(follow.lines(store, held.id, last=9)) == ["one", "two", "unfinished", "next"]


def test_following_output_begins_with_the_last_lines_and_goes_on_to_the_end(
    store: base.Store, held: jobs.Claim
) -> None:
    write(store, held, "old\nrecent\n")
    lines = follow.lines(store, held.id, last=1, follow=True, interval=FAST)
    assert next(lines) == "recent"
    write(store, held, "new\nand ", "the end", first=1)
    store.finish(held, parts.failed(states.Reason.DIVERGED))
    assert list(lines) == ["new", "and the end"]


def test_each_change_is_seen_once_and_the_end_last(store: base.Store, held: jobs.Claim) -> None:
    seen = follow.changes(store, held.id, interval=FAST)
    assert next(seen).progress.done == 0
    store.record_progress(held, jobs.Progress(done=1, total=2))
    assert next(seen).progress.done == 1
    store.finish(held, parts.failed(states.Reason.DIVERGED))
    assert [job.state for job in seen] == [states.JobState.FAILED]


def test_a_worker_that_falls_silent_is_a_change(
    store: base.Store, settings: config.Settings, clock: HandClock, held: jobs.Claim
) -> None:
    store.register(parts.worker(parts.identity(), now=clock.now()))
    seen = follow.watched(store, settings, held.id, interval=FAST)
    assert next(seen) == (store.get(held.id), frozenset())
    clock.move(minutes=1)
    assert next(seen)[1] == {parts.identity().id}
    store.beat_worker(parts.identity().id, states.WorkerState.ACTIVE)
    assert next(seen)[1] == frozenset()
    store.finish(held, parts.failed(states.Reason.DIVERGED))
    assert [job.state for job, _ in seen] == [states.JobState.FAILED]


def test_waiting_yields_jobs_as_they_end_each_once(store: base.Store, held: jobs.Claim) -> None:
    waiting = parts.submit(store)
    store.cancel(waiting.id, actor="ada")
    ended = follow.wait(store, [held.id, waiting.id, waiting.id], interval=FAST)
    assert next(ended).id == waiting.id
    end = threading.Thread(target=store.finish, args=(held, parts.failed(states.Reason.DIVERGED)))
    end.start()
    assert [job.id for job in ended] == [held.id]
    end.join()


def test_many_are_waited_for_by_one_look(store: base.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [store.cancel(parts.submit(store).id, actor="ada").id for _ in range(3)]
    with monkeypatch.context() as changed:
        changed.setattr(store, "get", lambda _: pytest.fail("one by one"))
        assert [job.id for job in follow.wait(store, ids, interval=FAST)] == ids
    store.delete(ids[1], actor="ada")
    with pytest.raises(errors.NotFound, match="was deleted"):
        list(follow.wait(store, ids, interval=FAST))


def test_time_runs_out(store: base.Store, held: jobs.Claim) -> None:
    with pytest.raises(errors.TimedOut, match=held.id):
        list(follow.wait(store, [held.id], interval=FAST, timeout=0.05))
    with pytest.raises(errors.TimedOut, match=held.id):
        list(follow.changes(store, held.id, interval=FAST, timeout=0.05))


FOLLOWERS: dict[str, Callable[..., Iterator[object]]] = {
    "changes": follow.changes,
    "wait": lambda store, job_id, **options: follow.wait(store, [job_id], **options),
    "lines": functools.partial(follow.lines, follow=True),
    "watched": lambda store, job_id, **options: follow.watched(store, config.Settings(), job_id, **options),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_a_database_that_goes_away_meanwhile_is_waited_for(
    store: base.Store, held: jobs.Claim, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(store, held, "a line\n")
    store.finish(held, parts.failed(states.Reason.DIVERGED))
    gone, get = iter([True, True]), store.get

    def look(job_id: str) -> jobs.Job:
        if next(gone, False):
            raise errors.DatabaseUnavailable
        return get(job_id)

    monkeypatch.setattr(store, "get", look)
    monkeypatch.setattr(follow, "AWAY_INTERVAL", FAST)
    told: list[errors.DatabaseUnavailable] = []
    assert len(list(FOLLOWERS[name](store, held.id, interval=FAST, away=told.append))) == 1
    assert len(told) == 1


@pytest.mark.parametrize(("patience", "timeout"), [(0.0, None), (60.0, 0.0)])
def test_a_database_that_stays_away_is_not_waited_for_for_ever(
    store: base.Store, held: jobs.Claim, monkeypatch: pytest.MonkeyPatch, patience: float, timeout: float | None
) -> None:
    def look(_: str) -> jobs.Job:
        raise errors.DatabaseUnavailable

    monkeypatch.setattr(store, "get", look)
    monkeypatch.setattr(follow, "PATIENCE", patience)
    with pytest.raises(errors.DatabaseUnavailable):
        list(follow.wait(store, [held.id], interval=FAST, timeout=timeout))
