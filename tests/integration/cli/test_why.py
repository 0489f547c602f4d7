"""`orch why`, `orch worker list|drain|resume|forget`, and what `submit` says of a job's place."""

import functools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import config
from orchestrator.core import clock as clocks
from orchestrator.core import dependencies, jobs, limits, specs, states
from orchestrator.service import context, queueviews
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch, living_worker

State, Stage = states.JobState, states.Stage


@pytest.fixture
def store(migrated: config.Settings) -> Iterator[sql.SqlStore]:
    """The store by the clock that the commands go by: who was heard of long ago is silent."""
    with closing(sql.open_store(migrated)) as opened:
        yield opened


def trainable(store: sql.SqlStore, **fields: object) -> jobs.Job:
    """Return a job whose data is there."""
    job = parts.submit(store, **fields)
    held = parts.claimed(store, Stage.DOWNLOAD)
    assert held.id == job.id
    return store.finish(held, parts.DONE)


def worker(name: str, **fields: Any) -> jobs.Worker:
    known = living_worker()
    return replace(known, **{"identity": replace(known.identity, id=name), **fields})


def ask(orch: Orch, job: jobs.Job) -> queueviews.WhyPayload:
    return queueviews.WhyPayload.model_validate_json(orch("why", job.id, "--json").out)


def test_a_place_in_the_queue_is_told_by_user(orch: Orch, store: sql.SqlStore) -> None:
    store.register(living_worker())
    for user in ("bob", "bob", "ada", "ada"):
        last = parts.submit(store, user=user)
    rows = orch("why", last.id).rows
    sentence = "It is queued for download: 3 jobs are ahead of it."
    assert rows[0] == ["job", last.id, "queued", "download", "3", sentence]
    assert sorted(row[1:] for row in rows if row[0] == "ahead") == [["ada", "1"], ["bob", "2"]]
    assert [row for row in rows if row[0] == "worker"] == [
        ["worker", "worker-a", "true", "takes it when it is its turn"]
    ]


HINDRANCES: dict[str, dict[str, Any]] = {
    "checkpoints lie in root-x": {"artifact_root": "root-y"},
    "no device": {"devices": ()},
    "jobs up to version 1": {"versions": {"spec": "1"}},
    "limit of 1 at once for ada": {"limits": limits.Limits(users={"*": 1})},
    "limit of 1 at once for the tag big": {"limits": limits.Limits(tags={"big": 1})},
}


@pytest.mark.parametrize("words", HINDRANCES)
def test_why_a_worker_does_not_take_it(orch: Orch, store: sql.SqlStore, words: str) -> None:
    trainable(store, tags=("big",))
    assert parts.claim(store, Stage.TRAIN)
    job = trainable(store, tags=("big",))
    if "root-x" in words:
        parts.overwrite(store, job.id, artifact_root="root-x")
    store.register(worker("worker-b", **HINDRANCES[words]))
    answer = ask(orch, job)
    assert answer.sentence == "It is queued for train: no worker takes it as things stand."
    (verdict,) = answer.workers
    assert not verdict.takes
    assert words in verdict.why


def test_a_worker_that_is_busy_takes_it_later(orch: Orch, store: sql.SqlStore) -> None:
    running = trainable(store)
    store.register(living_worker())
    assert parts.claim(store, Stage.TRAIN)
    (verdict,) = ask(orch, trainable(store)).workers
    assert verdict.takes
    assert running.id in verdict.why


def test_what_is_waited_for_is_named(orch: Orch, store: sql.SqlStore) -> None:
    first = parts.submit(store)
    second = parts.submit(store, after=(dependencies.Dependency(needs=first.id, rule=states.After.ANY),))
    answer = ask(orch, second)
    assert answer.sentence == f"It is queued for download, and waits for {first.id}."
    assert [(one.needs, one.rule, one.ended) for one in answer.needs] == [(first.id, "any", None)]
    assert ["needs", first.id, "any", ""] in orch("why", second.id).rows


def test_an_hour_is_named_beside_what_is_waited_for(orch: Orch, store: sql.SqlStore) -> None:
    first, hour = parts.submit(store), datetime(2090, 1, 2, 3, 4, tzinfo=UTC)
    needs = (dependencies.Dependency(needs=first.id, rule=states.After.OK),)
    second, past = (
        parts.submit(store, after=needs, not_before=moment) for moment in (hour, datetime(2020, 1, 1, tzinfo=UTC))
    )
    waits = f"It is queued for download, and waits for {first.id}"
    begins = f"{hour.astimezone():%Y-%m-%d %H:%M:%S}"
    assert ask(orch, second).sentence == f"{waits}, and begins no earlier than {begins}."
    assert ask(orch, past).sentence == f"{waits}."


def test_who_has_the_data_is_told_where_others_have_not(orch: Orch, store: sql.SqlStore) -> None:
    known = worker("worker-b")
    store.register(replace(known, identity=replace(known.identity, host="elsewhere")))
    store.register(living_worker())
    parts.submit(store)
    held = parts.claimed(store, Stage.DOWNLOAD)
    data = jobs.Dataset(hash="h", source="x", classes=("a", "b"), counts={"train": 1}, bytes=1, path="x")
    store.record_dataset(held, data)
    said = {one.worker: one.why for one in ask(orch, parts.submit(store)).workers}
    takes = "takes it when it is its turn; its host"
    assert said == {"worker-a": f"{takes} has the data", "worker-b": f"{takes} fetches the data first"}


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_a_job_that_does_not_wait_says_so(orch: Orch, store: sql.SqlStore, verb: str) -> None:
    job = parts.submit(store)
    orch(verb, job.id)
    assert {"pause": "orch resume", "cancel": "been cancelled"}[verb] in ask(orch, job).sentence


def measured(store: sql.SqlStore, held: jobs.Claim, *seconds: float) -> None:
    """Let a training close its first epochs in so many seconds, a quarter of them each for validation."""
    for epoch, whole in enumerate(seconds, 1):
        rows = [
            replace(row, seconds=whole * (0.75 if row.split == "train" else 0.25)) for row in parts.epoch_rows(epoch)
        ]
        store.record_checkpoint(held, parts.checkpoint(held, 10 * epoch, accuracy=0.5, epoch=epoch), rows)


def between(part: queueviews.IntervalPart | None) -> tuple[float, float]:
    assert part is not None
    return part.low, part.high


def test_begin_and_end_are_told_by_epochs_that_were_measured(orch: Orch, store: sql.SqlStore) -> None:
    running = trainable(store)
    store.register(worker("worker-a", devices=("CPU",)))
    held = parts.claimed(store, Stage.TRAIN)
    store.record_resumed(held, attempt=None, step=0)
    waiting = trainable(store)
    assert ask(orch, waiting).begins is None  # nothing was measured yet
    measured(store, held, 10, 12, 14, 12)
    low, high = 10 * 0.95, 14 * 1.05  # four measurements: a fifth's doubt, divided by four
    validations = 2.5 * (1 - 0.2 / 4), 3.5 * (1 + 0.2 / 4)
    left = running.spec.epochs - 4
    answer = ask(orch, waiting)
    whole = left + waiting.spec.epochs
    begins = low * left + validations[0], high * left + validations[1]
    ends = low * whole + 2 * validations[0], high * whole + 2 * validations[1]
    assert between(answer.begins) == pytest.approx(begins)
    assert between(answer.ends) == pytest.approx(ends)
    assert ["job", "ends_in", f"{low * left},{high * left}"] in orch("status", running.id).rows


class Hand(clocks.SystemClock):
    """A clock that stands still at the machine's time, until it is moved by hand."""

    def __init__(self) -> None:
        self.begin, self.ahead = super().now(), timedelta()

    def now(self) -> datetime:
        return self.begin + self.ahead


@pytest.fixture
def late(store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch) -> Hand:
    """The clock of the store, which is that of the commands as well."""
    clock = Hand()
    monkeypatch.setattr(store, "clock", clock)
    monkeypatch.setattr(store, "now", lambda _: clock.now())
    monkeypatch.setattr(context, "open_store", functools.partial(sql.open_store, clock=clock))
    return clock


def stage_done(store: sql.SqlStore, clock: Hand, stage: states.Stage, *, seconds: float) -> None:
    """Let the next job pass a stage in so many seconds."""
    held = parts.claimed(store, stage)
    if stage == "train":
        store.record_resumed(held, attempt=None, step=0)
        measured(store, held, *[seconds / held.job.spec.epochs] * held.job.spec.epochs)
    clock.ahead += timedelta(seconds=seconds)
    store.finish(held, parts.DONE)


def test_downloads_and_evaluations_are_foreseen_by_those_of_others(orch: Orch, store: sql.SqlStore, late: Hand) -> None:
    spec = specs.parse({"data": "digits", "epochs": 4})
    for _ in range(4):
        parts.submit(store, spec=spec)
        for stage, seconds in ((Stage.DOWNLOAD, 10), (Stage.TRAIN, 100), (Stage.EVALUATE, 20)):
            stage_done(store, late, stage, seconds=seconds)
    first = parts.submit(store, spec=spec)
    store.register(worker("worker-a", artifact_root=parts.ROOT))
    assert parts.claimed(store, Stage.DOWNLOAD).id == first.id
    late.ahead += timedelta(seconds=4)
    trained, evaluated = (98.75, 101.25), (19, 21)  # of sixteen epochs, and of four evaluations
    alone = (5.5 + trained[0] + evaluated[0], 6.5 + trained[1] + evaluated[1])
    assert between(ask(orch, first).ends) == pytest.approx(alone, rel=0.01)
    last = parts.submit(store, spec=spec)
    answer = ask(orch, last)
    assert between(answer.begins) == (0, 0)  # there are two slots for downloads
    ends = (9.5 + trained[0] + evaluated[0], 2 * (trained[1] + evaluated[1]))  # before the other, or behind it
    assert between(answer.ends) == pytest.approx(ends, rel=0.01)

    stage_done(store, late, Stage.DOWNLOAD, seconds=5)
    stage_done(store, late, Stage.TRAIN, seconds=100)
    store.beat_worker("worker-a", states.WorkerState.ACTIVE)
    answer = ask(orch, last)
    assert answer.job.stage == "evaluate"
    assert between(answer.begins) == (0, 0)
    assert between(answer.ends) == pytest.approx(evaluated, rel=0.01)


@pytest.fixture
def line(store: sql.SqlStore, late: Hand) -> list[jobs.Job]:
    """Jobs of bob that have ended, one of ada that trains, and one of each that waits for its device."""
    spec = specs.parse({"data": "digits", "epochs": 4})
    for _ in range(4):
        parts.submit(store, spec=spec, user="bob")
        for stage, seconds in ((Stage.DOWNLOAD, 10), (Stage.TRAIN, 100), (Stage.EVALUATE, 20)):
            stage_done(store, late, stage, seconds=seconds)
    store.register(worker("worker-a", artifact_root=parts.ROOT, limits=limits.Limits(tags={"big": 1})))
    trainable(store, spec=spec, user="ada", tags=("big",))
    store.record_resumed(parts.claimed(store, Stage.TRAIN), attempt=None, step=0)
    return [trainable(store, spec=spec, user="ada", tags=("big",)), trainable(store, spec=spec, user="ada")]


def test_what_others_submit_meanwhile_makes_the_latest_time_later(
    orch: Orch, store: sql.SqlStore, line: list[jobs.Job]
) -> None:
    held_back, free = line
    assert ask(orch, held_back).begins is None
    low, high = between(ask(orch, free).begins)
    once = 98.75 + 19, 101.25 + 21
    assert low == pytest.approx(once[0], rel=0.02)  # a limit holds back the one that is ahead
    assert 2 * once[1] / (1 - 0.75) == pytest.approx(high, rel=0.02)  # and bob kept the device busy all the time
    mine = trainable(store, spec=free.spec, user="bob")
    low, high = between(ask(orch, mine).begins)
    assert high < 3 * once[1]  # bob's own jobs are no others', and he is next: an hour's chance may bring one of ada's


def test_drain_resume_and_forget(orch: Orch, store: sql.SqlStore) -> None:
    store.register(living_worker())
    job = parts.submit(store)
    assert orch("worker", "drain", "worker-a").rows == [["worker-a", "draining"]]
    assert parts.claim(store) is None  # at once, before the worker has heard of it
    assert store.beat_worker("worker-a", states.WorkerState.ACTIVE) is states.WorkerWish.DRAIN
    assert "draining" in ask(orch, job).workers[0].why
    assert orch("worker", "forget", "worker-a").code == 1
    assert orch("worker", "resume", "worker-a").code == 0
    assert store.beat_worker("worker-a", states.WorkerState.ACTIVE) is states.WorkerWish.RUN
    assert parts.claim(store) is not None
    store.beat_worker("worker-a", states.WorkerState.STOPPED)
    assert orch("worker", "drain", "worker-a").code == 1
    assert [row[:2] for row in orch("worker", "list").rows] == [["worker-a", "stopped"]]
    told = queueviews.WorkerPayload.model_validate_json(orch("worker", "list", "--json").out)
    assert (told.id, told.state, told.wish) == ("worker-a", "stopped", "run")
    assert orch("worker", "forget", "worker-a").rows == [["worker-a", "forgotten"]]
    assert orch("worker", "list").out == ""
    for verb in ("drain", "resume", "forget"):
        assert orch("worker", verb, "nobody").code == 3


def test_submit_says_what_comes_first(orch: Orch, store: sql.SqlStore) -> None:
    first = orch("submit", "--data", "digits", "-q").out.strip()
    second = orch("submit", "--data", "digits", "-q", "--after", f"{first}:any", "--user", "bob").out.strip()
    assert store.get(second).user == "bob"
    assert [(one.needs, one.rule) for one in store.dependencies(second)] == [(first, states.After.ANY)]
    third = orch("submit", "--data", "digits", "-q", "--not-before", "+2h").out.strip()
    start = store.get(third).start_after
    assert start is not None
    assert timedelta(hours=1) < start - datetime.now(UTC) < timedelta(hours=2)


@pytest.mark.parametrize(("option", "value", "code"), [("--after", "nothere0", 3), ("--not-before", "soon", 2)])
def test_submit_refuses_what_it_cannot_wait_for(
    orch: Orch, store: sql.SqlStore, option: str, value: str, code: int
) -> None:
    ran = orch("submit", "--data", "digits", option, value)
    assert (ran.code, ran.out) == (code, "")
    assert value in ran.err
    assert store.jobs(jobs.JobFilter()) == []
