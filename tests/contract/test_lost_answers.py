"""The connection is cut at a commit, before it reaches the database or with its answer lost: whoever asked asks again.

Everything has happened once then. On SQLite a failing disk stands in for the cut.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from orchestrator import config, errors, failpoints
from orchestrator.core import dependencies, jobs, specs, states, telling, verbs
from orchestrator.service import reconcile
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.contract.test_fences import WRITES, picture
from tests.integration.cli.conftest import living_worker
from tests.support import proxy

When = Literal["before", "after"]


#: Where SQLite's disk fails.
MOMENTS = {"before": "commit", "after": "committed"}


class Cut:
    """What cuts; `between` is the proxy before a server."""

    def __init__(self, between: proxy.Proxy | None) -> None:
        self.armed: dict[str, list[When]] = {}
        self._between = between

    @property
    def port(self) -> int | None:
        """Where the proxy listens."""
        return self._between.port if self._between else None

    def at(self, write: str, *when: When) -> None:
        """Cut at the commits of the next transactions of this name."""
        self.armed[f"store.{write}"] = list(when)

    def reach(self, place: str) -> bool:
        """Stand in for `failpoints.reach`."""
        write, _, moment = place.rpartition(".")
        when = self.armed.get(write, [None])[0]
        if when is None or moment != ("commit" if self._between else MOMENTS[when]):
            return False
        del self.armed[write][0]
        if not self.armed[write]:
            del self.armed[write]
        if self._between is None:
            raise OSError(errno.EIO, "Input/output error")
        lane = self._between.to_server if when == "before" else self._between.to_client
        lane.rule = proxy.Rule(cut_at=b"COMMIT")
        return False


def _server(url: str) -> proxy.Place:
    parsed = make_url(url)
    folder = parsed.query.get("host")
    return Path(str(folder)) / ".s.PGSQL.5432" if folder else (str(parsed.host), parsed.port or 5432)


@pytest.fixture
def cut(any_settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cut]:
    with ExitStack() as stack:
        server = None if any_settings.embedded_database else _server(any_settings.database)
        cut = Cut(stack.enter_context(proxy.Proxy(server)) if server else None)
        monkeypatch.setattr(failpoints, "reach", cut.reach)
        yield cut
    assert cut.armed == {}


@pytest.fixture
def any_store(any_settings: config.Settings, cut: Cut, clock: HandClock) -> Iterator[sql.SqlStore]:
    """A store on each database, behind what cuts."""
    settings = any_settings
    if cut.port is not None:
        url = make_url(settings.database).set(host="127.0.0.1", port=cut.port, query={})
        secret = SecretStr(url.render_as_string(hide_password=False))
        settings = settings.model_copy(update={"database_url": secret})
    with closing(sql.open_store(settings, clock=clock)) as opened:
        yield opened


CANCEL = verbs.Change(verb=verbs.Verb.CANCEL)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A write of the store, what comes before it, and what who asks again is told."""

    act: Callable[[sql.SqlStore, Any], object]
    scene: Callable[[sql.SqlStore], Any] = parts.training
    again: type[errors.OrchError] | None = None  #: what it raises; None where it is as the first time
    counts: bool = False  #: whether each call counts: a beat


def waiting(store: sql.SqlStore) -> str:
    return parts.submit(store).id


def urgent(store: sql.SqlStore) -> None:
    """Let a preemptible training run, and an urgent job wait."""
    store.register(living_worker(artifact_root=parts.ROOT))
    parts.training(store, spec=specs.JobSpec(preemptible=True))
    parts.submit(store, priority=5)
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD), parts.DONE)


def paused(store: sql.SqlStore) -> str:
    job_id = waiting(store)
    store.pause(job_id, actor="ada")
    return job_id


def cancelled(store: sql.SqlStore) -> str:
    job_id = waiting(store)
    store.cancel(job_id, actor="ada")
    return job_id


def worker(store: sql.SqlStore) -> jobs.Worker:
    known = living_worker()
    store.register(known)
    return known


def lease(store: sql.SqlStore) -> jobs.Lease:
    parts.training(store)
    return store.leases()[0]


def gone(store: sql.SqlStore) -> jobs.Worker:
    known = worker(store)
    store.beat_worker(known.id, states.WorkerState.STOPPED)
    return known


def due(store: sql.SqlStore) -> str:
    """Leave a job that waited for one that has just been cancelled."""
    needed = waiting(store)
    parts.submit(store, after=(dependencies.Dependency(needs=needed, rule=states.After.OK),))
    store.cancel(needed, actor="ada")
    return needed


def tried(store: sql.SqlStore) -> telling.Answer:
    """Leave a notice that was tried and heard, which is not stored yet."""
    tells = telling.Telling(targets=("https://hooks.example.org/x",), on=frozenset({telling.Occasion.CANCELLED}))
    store.cancel(parts.submit(store, notify=tells).id, actor="ada")
    notice = store.next_notice()
    assert notice is not None
    return telling.Answer(notice=notice, how="told")


def fenced(name: str, *, counts: bool = False) -> Case:
    return Case(act=WRITES[name], counts=counts)


CASES = {
    "beat": fenced("beat", counts=True),
    "record_progress": fenced("progress"),
    "record_resumed": Case(act=lambda store, held: store.record_resumed(held, attempt=1, step=0)),
    "record_environment": fenced("environment"),
    "record_steps": fenced("steps"),
    "record_checkpoint": fenced("checkpoint"),
    "record_epoch": fenced("epoch"),
    "record_dataset": fenced("dataset"),
    "record_evaluation": fenced("evaluation"),
    "record_log": fenced("log"),
    "note": fenced("note"),
    "finish": fenced("done"),
    "cancel": Case(scene=waiting, act=lambda store, job: store.cancel(job, actor="ada")),
    "pause": Case(scene=waiting, act=lambda store, job: store.pause(job, actor="ada")),
    "resume": Case(scene=paused, act=lambda store, job: store.resume(job, actor="ada"), again=errors.IllegalMove),
    "begin_anew": Case(scene=cancelled, act=lambda store, job: store.retry(job, actor="ada"), again=errors.IllegalMove),
    "delete": Case(scene=cancelled, act=lambda store, job: store.delete(job, actor="ada"), again=errors.NotFound),
    "register": Case(scene=lambda _: living_worker(), act=lambda store, known: store.register(known)),
    "beat_worker": Case(
        scene=worker,
        act=lambda store, known: store.beat_worker(known.identity.id, states.WorkerState.ACTIVE),
        counts=True,
    ),
    "lose_worker": Case(scene=worker, act=lambda store, known: store.lose_worker(known.identity.id, beat=known.beat)),
    "steer": Case(scene=waiting, act=lambda store, job: list(store.steer(CANCEL, [job], actor="ada"))),
    "wish_worker": Case(scene=worker, act=lambda store, known: store.wish_worker(known.id, states.WorkerWish.DRAIN)),
    "forget_worker": Case(scene=gone, act=lambda store, known: store.forget_worker(known.id), again=errors.NotFound),
    "unblock": Case(scene=due, act=lambda store, _: store.unblock(actor="reconciler")),
    "make_room": Case(scene=urgent, act=lambda store, _: store.make_room(actor="reconciler", stay=timedelta())),
    "next_notice": Case(scene=tried, act=lambda store, answer: store.next_notice(answer)),
    "take_back": Case(scene=lease, act=lambda store, held: store.take_back(held, actor="reconciler", detail="silent")),
}
#: Writes with tests of their own, below.
OTHERS = {"submit", "claim"}
#: What takes back by itself all that it has written.
UNDONE = {"rehearse"}


def test_every_write_of_the_store_has_its_case() -> None:
    commits = {place.removesuffix(".commit") for place in failpoints.PLACES if place.endswith(".commit")}
    writes = {place.removeprefix("store.") for place in commits if place.startswith("store.")}
    assert writes == CASES.keys() | OTHERS | UNDONE


@pytest.mark.parametrize("write", CASES)
def test_write_that_is_cut_off_happens_once(any_store: sql.SqlStore, cut: Cut, write: str) -> None:
    case = CASES[write]
    there = case.scene(any_store)
    before = picture(any_store)
    cut.at(write, "before")
    with pytest.raises(errors.DatabaseUnavailable):
        case.act(any_store, there)
    assert picture(any_store) == before
    cut.at(write, "after")
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        case.act(any_store, there)
    assert caught.value.unheard
    once = picture(any_store)
    assert once != before
    with pytest.raises(case.again) if case.again else nullcontext():
        case.act(any_store, there)
    assert (picture(any_store) == once) is not case.counts


@pytest.mark.parametrize(
    "outcome",
    [parts.DONE, parts.DRAINED, parts.PAUSED, jobs.Outcome(kind="cancelled"), parts.failed(states.Reason.GPU_ERROR)],
)
def test_end_that_is_said_again_is_told_what_it_has_done(
    any_store: sql.SqlStore, cut: Cut, outcome: jobs.Outcome
) -> None:
    held = parts.training(any_store)
    cut.at("finish", "after")
    with pytest.raises(errors.DatabaseUnavailable):
        any_store.finish(held, outcome)
    assert any_store.finish(held, outcome) == any_store.get(held.id)
    assert len([event for event in any_store.events(held.id) if event.attempt == held.attempt]) == 2


def test_end_that_is_said_again_after_the_next_claim_leaves_that_alone(any_store: sql.SqlStore, cut: Cut) -> None:
    held = parts.training(any_store)
    cut.at("finish", "after")
    with pytest.raises(errors.DatabaseUnavailable):
        any_store.finish(held, parts.DRAINED)
    again = parts.claimed(any_store, worker="worker-b")
    assert any_store.finish(held, parts.DRAINED).worker == "worker-b"
    assert any_store.beat(again) is states.Wish.RUN


@pytest.mark.parametrize("outcome", [parts.DONE, parts.failed(states.Reason.OOM)])
def test_another_end_is_stale(any_store: sql.SqlStore, outcome: jobs.Outcome) -> None:
    held = parts.training(any_store)
    any_store.finish(held, parts.failed(states.Reason.GPU_ERROR))
    with pytest.raises(errors.Stale):
        any_store.finish(held, outcome)


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_person_who_repeats_a_wish_changes_nothing_more(any_store: sql.SqlStore, cut: Cut, verb: str) -> None:
    held = parts.training(any_store)
    cut.at(verb, "after")
    with pytest.raises(errors.DatabaseUnavailable):
        getattr(any_store, verb)(held.id, actor="ada")
    getattr(any_store, verb)(held.id, actor="ada")
    assert parts.kinds(any_store, held.id).count(f"{verb}_requested") == 1


@pytest.mark.parametrize("key", [None, "some key"])
def test_submit_whose_answer_is_lost_stores_one_job(any_store: sql.SqlStore, cut: Cut, key: str | None) -> None:
    cut.at("submit", "after")
    job, is_new = any_store.submit(parts.new_job(idempotency_key=key))
    assert is_new
    assert [found.id for found in any_store.jobs(jobs.JobFilter())] == [job.id]
    assert parts.kinds(any_store, job.id) == ["submitted"]


def test_submit_of_which_nobody_hears_names_its_job(any_store: sql.SqlStore, cut: Cut) -> None:
    cut.at("submit", "after", "after")
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        parts.submit(any_store)
    (job,) = any_store.jobs(jobs.JobFilter())
    assert f"orch status {job.id}" in str(caught.value.hint)


def test_claim_of_which_nobody_heard_is_found_again(any_store: sql.SqlStore, cut: Cut) -> None:
    job = parts.submit(any_store)
    cut.at("claim", "after")
    with pytest.raises(errors.DatabaseUnavailable):
        parts.claim(any_store)
    assert any_store.get(job.id).state is states.JobState.RUNNING
    assert parts.claim(any_store, worker="worker-b") is None
    assert parts.claim(any_store, states.Stage.TRAIN) is None
    held = parts.claimed(any_store)
    assert (held.id, held.attempt) == (job.id, 1)
    assert any_store.beat(held) is states.Wish.RUN
    assert parts.claim(any_store) is None  # it is found once


def test_claim_that_did_not_arrive_is_nobody_s(any_store: sql.SqlStore, cut: Cut, clock: HandClock) -> None:
    """Another slot of the same worker may make the very attempt that was undone."""
    parts.submit(any_store)
    cut.at("claim", "before")
    with pytest.raises(errors.DatabaseUnavailable):
        parts.claim(any_store)
    clock.move(seconds=1)
    with closing(sql.SqlStore(any_store.database, clock=clock)) as other:
        assert parts.claimed(other).attempt == 1
        assert parts.claim(any_store) is None


def test_claim_of_which_nobody_heard_ends_with_its_lease(any_store: sql.SqlStore, clock: HandClock, cut: Cut) -> None:
    """Where its worker asks no more; found too late, it is left alone."""
    job = parts.submit(any_store)
    cut.at("claim", "after")
    with pytest.raises(errors.DatabaseUnavailable):
        parts.claim(any_store)
    reconciler = reconcile.Reconciler(store=any_store, clock=clock, lease_seconds=30, actor="reconciler")
    for _ in range(5):
        reconciler.sweep()
        clock.move(seconds=10)
    assert (any_store.get(job.id).state, any_store.get(job.id).retries) == (states.JobState.QUEUED, 1)
    assert parts.claimed(any_store).attempt == 2
