"""Histories of people, workers, queue and time, made up by Hypothesis: nothing is lost, nothing is run twice."""

from pathlib import Path

import pytest

from orchestrator.core import resources, states
from tests.faults.machine import play


@pytest.mark.timeout(900)  # a history that fails is made shorter first, which takes its time
def test_every_history_keeps_the_promise(migrated_file: Path) -> None:
    play.run(migrated_file, examples=10, steps=50)


@pytest.mark.parametrize(
    ("goes", "obeys", "then"),
    [("", True, ""), ("cancel", True, ""), ("", False, ""), ("", True, "pause"), ("", True, "cancel")],
)
def test_a_yield_keeps_the_promise(migrated_file: Path, goes: str, obeys: bool, then: str) -> None:
    """What Hypothesis seldom comes to with so few histories: an urgent job while only one worker claims."""
    with play.played(migrated_file) as machine:
        machine.begin(count=1, claimed=1)
        machine.work(0, steps=1, save=False)
        machine.claim(0, which=0, by_bell=False, damaged=False)
        machine.work(0, steps=3, save=False)
        machine.urgent(0, goes=goes, obeys=obeys, then=then)
        kinds = [event.kind for event in machine.store.events(machine.account.promised[0])]
        assert ("yield_requested" in kinds, "yield_taken_back" in kinds) == (True, bool(goes))
        assert ("yielded" in kinds) == (obeys and not goes and not then)


def test_a_gang_has_its_devices_to_itself(migrated_file: Path) -> None:
    with play.played(migrated_file) as machine:
        for gpus in (2, 1):
            machine.submit(lost=False, gpus=gpus)
            machine.claim(0, which=0, by_bell=False, damaged=False)
            machine.work(0, steps=1, save=False)
        alone, first, second = machine.workers
        for worker in (second, first, alone):
            worker.take((states.Stage.TRAIN,))
        machine.all_holds()
        held = [len(worker.claim.devices) if worker.claim else 0 for worker in machine.workers]
        assert held == [1, 0, 2]


def test_a_job_with_too_few_devices_is_noticed(migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.Demand, "at", lambda *_: resources.ANY)
    with pytest.raises(AssertionError, match="train on 2 was given 1"):
        test_a_gang_has_its_devices_to_itself(migrated_file)
