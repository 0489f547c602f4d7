"""A short trace of three users on the real store: the long one is `python -m benchmarks.trace`."""

from pathlib import Path

import pytest

from benchmarks import line, queues, simulation, trace, workload
from orchestrator.core import states

JOBS = 60

#: It takes seconds, and longer where other work keeps the machine busy.
pytestmark = pytest.mark.timeout(400)


def test_order_turns_use_of_the_devices_and_each_job_s_end_hold_over_a_trace(tmp_path: Path) -> None:
    found = trace.run(JOBS, seed=1, home=tmp_path, ask_every=10)
    assert trace.faults(found) == []
    assert len(found.ours.stages) > 2 * JOBS
    assert any(held.yielded for held in found.ours.stages)
    done = _done(found.ours)
    assert done == _done(found.plain) == _done(found.lenient)  # whatever the order
    failed = {plan.number for plan in found.plans if plan.fails is states.Reason.BAD_INPUT}
    assert failed
    assert not failed & done


def _done(run: simulation.Run) -> set[int]:
    return {held.one.plan.number for held in run.stages if held.stage is states.Stage.EVALUATE}


def test_another_order_than_the_rule_s_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "in_turn", line.in_order)
    with pytest.raises(RuntimeError, match="order is broken"):
        trace.run(60, seed=2, home=tmp_path, ask_every=1000)


def test_a_user_who_is_passed_over_and_a_job_that_is_overtaken_are_found() -> None:
    plans = workload.plans(40, seed=1)
    ada = [line.Waiting(plan=plan, submitted_at=queues.Clock().now()) for plan in plans if plan.user == "ada"]
    bob = next(line.Waiting(plan=plan, submitted_at=ada[0].submitted_at) for plan in plans if plan.user == "bob")
    patience, queue = line.Patience(), line.Line(line.in_turn)
    for _ in range(4):
        patience.look(states.Stage.TRAIN, [bob, ada[0]], ada[0], queue.running(states.Stage.TRAIN))
    assert patience.passed_over == 4
    later = line.Waiting(plan=ada[0].plan, submitted_at=ada[0].submitted_at + workload.moment(60))
    patience.look(states.Stage.TRAIN, [ada[0], later], later, queue.running(states.Stage.TRAIN))
    assert len(patience.faults) == 1
