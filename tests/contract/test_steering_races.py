"""Twenty processes steer the same job at the same moment, fifty times: each verb has one winner."""

import multiprocessing
from collections import Counter
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.core import jobs, states
from orchestrator.store import sql
from tests.contract import parts
from tests.support.waiting import patiently

State = states.JobState

PROCESSES = 20
DEADLINE = 240.0

#: Where a job stands before all do the same, and what of it the winner writes.
ALONE = {
    "cancel": (State.QUEUED, "cancelled"),
    "pause": (State.QUEUED, "paused"),
    "resume": (State.PAUSED, "resumed"),
    "retry": (State.CANCELLED, "new_run"),
    "delete": (State.CANCELLED, None),
}
STEERING = ("cancel", "pause", "resume", "retry")
ROUNDS = [*[(verb,) for verb in ALONE] * 6, *[STEERING] * 15, *[(*STEERING, "delete")] * 5]

Said = dict[int, tuple[str, str]]  #: by round: the verb, and won, refused or gone


def _steer(settings: config.Settings, number: int, job_ids: list[str], gate: Any, results: Any) -> None:
    said: Said = {}
    with closing(patiently(sql.open_store, settings)) as store:
        patiently(store.counts)  # the connection is there
        for turn, (job_id, verbs) in enumerate(zip(job_ids, ROUNDS, strict=True)):
            verb = verbs[number % len(verbs)]
            gate.wait(DEADLINE)
            said[turn] = (verb, _ask(store, verb, job_id, actor=f"p{number}"))
    results.put(said)


def _ask(store: sql.SqlStore, verb: str, job_id: str, *, actor: str) -> str:
    while True:
        try:
            getattr(store, verb)(job_id, actor=actor)
        except errors.DatabaseUnavailable:  # locked for long on a busy machine: a person is told to try again
            continue
        except errors.IllegalMove:
            return "refused"
        except errors.NotFound:
            return "gone"
        return "won"


def _stand(store: sql.SqlStore, verbs: tuple[str, ...]) -> str:
    job = parts.submit(store)
    state = ALONE[verbs[0]][0] if len(verbs) == 1 else State.QUEUED
    if state is State.PAUSED:
        store.pause(job.id, actor="ada")
    elif state is State.CANCELLED:
        store.cancel(job.id, actor="ada")
    return job.id


@pytest.mark.timeout(300)
def test_of_many_people_with_one_job_one_wins(any_settings: config.Settings) -> None:
    with closing(sql.open_store(any_settings)) as store:
        job_ids = [_stand(store, verbs) for verbs in ROUNDS]
        began = {job_id: len(store.events(job_id)) for job_id in job_ids}
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(PROCESSES), context.Queue()
    people = [
        context.Process(target=_steer, args=(any_settings, number, job_ids, gate, results))
        for number in range(PROCESSES)
    ]
    for person in people:
        person.start()
    said: list[Said] = [results.get(timeout=DEADLINE) for _ in people]
    for person in people:
        person.join(DEADLINE)
    with closing(sql.open_store(any_settings)) as store:
        for turn, (job_id, verbs) in enumerate(zip(job_ids, ROUNDS, strict=True)):
            counts = Counter(answers[turn] for answers in said)
            if "delete" in verbs:
                _check_deletion(store, job_id, counts)
            elif len(verbs) == 1:
                _check_one_winner(store.events(job_id)[began[job_id] :], verbs[0], counts)
            else:
                _check_history(store, job_id, counts)


def _check_deletion(store: sql.SqlStore, job_id: str, counts: "Counter[tuple[str, str]]") -> None:
    assert counts["delete", "won"] == 1
    assert counts["delete", "refused"] == 0
    assert store.deleted([job_id]) == {job_id}


def _check_one_winner(new: list[jobs.Event], verb: str, counts: "Counter[tuple[str, str]]") -> None:
    (event,) = new
    assert event.kind == ALONE[verb][1]
    idempotent = verb in {"cancel", "pause"}  # who asks for what is there already has it
    assert counts == Counter(
        {(verb, "won"): PROCESSES if idempotent else 1, (verb, "refused"): 0 if idempotent else 19}
    )


def _check_history(store: sql.SqlStore, job_id: str, counts: "Counter[tuple[str, str]]") -> None:
    events = store.events(job_id)
    for before, after in pairwise(events):
        assert after.old_state is before.new_state
        assert after.old_state is not None
        assert after.new_state is not None
        assert states.may_move(after.old_state, after.new_state)
    assert events[-1].new_state is store.get(job_id).state
    kinds = Counter(event.kind for event in events)
    assert (kinds["resumed"], kinds["new_run"]) == (counts["resume", "won"], counts["retry", "won"])
    assert 1 <= kinds["cancelled"] <= counts["cancel", "won"]
    assert kinds["paused"] <= counts["pause", "won"]
