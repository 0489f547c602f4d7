"""Histories of people, workers, queue and time, made up by Hypothesis: nothing is lost, nothing is run twice."""

from pathlib import Path

import pytest

from tests.faults.machine import rules


@pytest.mark.timeout(900)  # a history that fails is made shorter first, which takes its time
def test_every_history_keeps_the_promise(migrated_file: Path) -> None:
    rules.run(migrated_file, examples=15, steps=50)
