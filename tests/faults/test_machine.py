"""Histories of people, workers, queue and time, made up by Hypothesis: nothing is lost, nothing is run twice."""

from pathlib import Path

import pytest

from tests.faults.machine import rules


@pytest.mark.timeout(900)  # a history that fails is made shorter first, which takes its time
def test_every_history_keeps_the_promise(migrated_file: Path) -> None:
    rules.run(migrated_file, examples=15, steps=50)


@pytest.mark.parametrize(
    ("goes", "obeys", "then"),
    [("", True, ""), ("cancel", True, ""), ("", False, ""), ("", True, "pause"), ("", True, "cancel")],
)
def test_a_yield_keeps_the_promise(migrated_file: Path, goes: str, obeys: bool, then: str) -> None:
    """What Hypothesis seldom comes to with so few histories: an urgent job while only one worker claims."""
    with rules.played(migrated_file) as machine:
        machine.begin(count=1, claimed=1)
        machine.work(0, steps=1, save=False)
        machine.claim(0, which=0, by_bell=False, damaged=False)
        machine.work(0, steps=3, save=False)
        machine.urgent(0, goes=goes, obeys=obeys, then=then)
        kinds = [event.kind for event in machine.store.events(machine.account.promised[0])]
        assert ("yield_requested" in kinds, "yield_taken_back" in kinds) == (True, bool(goes))
        assert ("yielded" in kinds) == (obeys and not goes and not then)
