"""The soak's history checker notices every way in which orch could have lied to a client."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.core import history, jobs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.faults.soak import testimony
from tests.faults.soak.clients import Told

KEY = "c0-0"
RESULT = "epoch\t1\ttrain\t0.7"


@dataclass
class Scene:
    """One client, one job, and what each knows."""

    store: sql.SqlStore
    clock: HandClock
    told: list[Told] = field(default_factory=list)
    results: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.job = self.store.submit(jobs.NewJob(spec=parts.new_job().spec, user="ada", idempotency_key=KEY))[0].id
        self.tell("submit", key=KEY, state="queued")

    def tell(self, asked: str, **said: Any) -> None:
        """Let the client be told something, a second later."""
        self.clock.move(seconds=1)
        self.told.append(
            Told(**{"at": self.clock.now().timestamp(), "asked": asked, "job": self.job, "code": 0, **said})
        )
        self.clock.move(seconds=1)

    def do(self, *verbs: str) -> None:
        """Steer the job with every verb, each acknowledged."""
        for verb in verbs:
            state = getattr(self.store, verb)(self.job, actor="ada").state
            self.tell(verb, state=state)

    def claim(self) -> jobs.Claim:
        """Let a worker claim the job."""
        held = parts.claimed(self.store)
        self.clock.move(seconds=1)
        return held

    def found(self) -> list[str]:
        """Return what the checker says."""
        rows: list[history.History] = [self.store.history(job.id) for job in self.store.jobs(jobs.JobFilter())]
        return list(testimony.check(self.told, rows, {row.job.id: self.results for row in rows}))


@pytest.fixture
def scene(store: sql.SqlStore, clock: HandClock) -> Scene:
    return Scene(store, clock)


def _cancelled_while_running(scene: Scene) -> jobs.Claim:
    held = scene.claim()
    scene.store.cancel(scene.job, actor="ada")
    scene.tell("cancel", state="cancelling")
    return held


def test_a_life_of_which_the_truth_was_told_has_no_findings(scene: Scene) -> None:
    scene.do("pause", "resume")
    scene.results = (RESULT,)
    held = _cancelled_while_running(scene)
    scene.tell("status", state="running", results=(RESULT,))
    scene.store.finish(held, jobs.Outcome(kind="cancelled"))
    scene.do("cancel")  # so it is already: no event
    scene.tell("status", state="cancelled", results=(RESULT,))
    scene.do("retry", "cancel")
    assert scene.found() == []


def test_a_command_that_was_killed_leaves_open_what_it_did(scene: Scene) -> None:
    scene.do("cancel")
    scene.store.retry(scene.job, actor="ada")
    scene.tell("retry", code=None)
    scene.store.cancel(scene.job, actor="ada")
    scene.tell("cancel", code=None)
    scene.tell("retry", code=None)
    assert scene.found() == []


def _lose(scene: Scene) -> None:
    scene.store.cancel(scene.job, actor="ada")
    scene.store.delete(scene.job, actor="ada")


def _promise_another(scene: Scene) -> None:
    scene.do("cancel")
    scene.tell("submit", key=KEY, job=scene.job, state="queued")
    scene.tell("submit", key=KEY, job="7zzzzzzz", state="queued")


def _make_one_up(scene: Scene) -> None:
    scene.do("cancel")
    other = parts.submit(scene.store)
    scene.store.cancel(other.id, actor="ada")


def _cancel_in_vain(scene: Scene) -> None:
    held = _cancelled_while_running(scene)
    parts.overwrite(scene.store, scene.job, wish=states.Wish.RUN)  # the wish is lost
    scene.store.finish(held, parts.DRAINED)
    scene.store.finish(scene.claim(), parts.failed(states.Reason.DIVERGED))


def _cancel_without_an_event(scene: Scene) -> None:
    held = scene.claim()
    scene.tell("cancel", state="cancelling")
    scene.store.finish(held, parts.failed(states.Reason.DIVERGED))


def _retry_twice(scene: Scene) -> None:
    scene.do("cancel", "retry")
    scene.store.cancel(scene.job, actor="ada")
    scene.tell("cancel", code=None)
    scene.store.retry(scene.job, actor="ada")
    scene.store.cancel(scene.job, actor="ada")
    scene.tell("cancel", code=None)


def _retry_in_vain(scene: Scene) -> None:
    scene.do("cancel")
    scene.tell("retry", state="queued")


def _forget_a_success(scene: Scene) -> None:
    scene.tell("status", state="succeeded")
    scene.do("cancel")


def _take_an_end_back(scene: Scene) -> None:
    scene.tell("status", state="failed")
    scene.do("cancel")


def _change_a_result(scene: Scene) -> None:
    scene.tell("status", state="running", results=(RESULT,))
    scene.do("cancel")


LIES: list[tuple[Callable[[Scene], object], str]] = [
    (_lose, "is lost"),
    (_promise_another, "was promised"),
    (_make_one_up, "nobody was promised"),
    (lambda scene: scene.do("pause", "resume"), "has not ended"),
    (_cancel_in_vain, "was to be cancelled"),
    (_cancel_in_vain, "began after its cancel was acknowledged"),
    (_cancel_without_an_event, "cancel was acknowledged, and no event"),
    (_retry_twice, "retry was asked for 1 times and done 2 times"),
    (_retry_in_vain, "retry was acknowledged, and no event"),
    (_forget_a_success, "was said to have succeeded"),
    (_take_an_end_back, "was said to be failed"),
    (_change_a_result, "was said to have 'epoch"),
]


@pytest.mark.parametrize(("lie", "said"), LIES, ids=[said for _, said in LIES])
def test_a_lie_is_noticed(lie: Callable[[Scene], object], said: str, scene: Scene) -> None:
    lie(scene)
    assert any(said in found for found in scene.found()), scene.found()
