import itertools

import pytest

from orchestrator.core import states

State = states.JobState

#: Every legal move, written a second time on purpose: the table may not change unnoticed.
LEGAL = {
    (State.QUEUED, State.RUNNING),  # claimed
    (State.QUEUED, State.PAUSED),  # a person sets it aside
    (State.QUEUED, State.CANCELLED),
    (State.QUEUED, State.FAILED),  # a job that it waits for did not succeed
    (State.RUNNING, State.QUEUED),  # drained, lost, retried, or on to the next stage
    (State.RUNNING, State.PAUSED),
    (State.RUNNING, State.SUCCEEDED),
    (State.RUNNING, State.FAILED),
    (State.RUNNING, State.CANCELLED),
    (State.PAUSED, State.QUEUED),
    (State.PAUSED, State.CANCELLED),
    (State.FAILED, State.QUEUED),  # a new run
    (State.CANCELLED, State.QUEUED),  # a new run
    (State.SUCCEEDED, State.QUEUED),  # a new run with more epochs
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_moves_are_those_of_the_table(old: State, new: State) -> None:
    assert states.may_move(old, new) == ((old, new) in LEGAL)


def test_every_job_can_reach_an_end() -> None:
    for start in set(State) - states.FINAL:
        reached, frontier = {start}, [start]
        while frontier:
            fresh = states.MOVES[frontier.pop()] - reached
            reached |= fresh
            frontier += fresh
        assert reached >= states.FINAL


def test_stages_follow_each_other_once() -> None:
    order = [states.Stage.DOWNLOAD]
    while (following := states.NEXT_STAGE[order[-1]]) is not None:
        order.append(following)
    assert order == list(states.Stage)
    assert set(states.DOING) == set(states.Stage)


@pytest.mark.parametrize("kind", [State, states.Stage, states.Wish, states.Reason, states.WorkerState])
def test_members_equal_their_stored_value(kind: type[State]) -> None:
    for member in kind:
        assert member == member.name.lower()
