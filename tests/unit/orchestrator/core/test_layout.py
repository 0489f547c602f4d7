"""Names in the folders of artifacts: what a worker makes, a service finds."""

from pathlib import Path

import pytest

from orchestrator.core import layout


@pytest.mark.parametrize("number", [1, 9999, 10000])
def test_the_folder_of_an_attempt_says_which_it_is(number: int) -> None:
    folder = layout.attempt(Path("artifacts"), "k3f9m2qa", number)
    assert folder.parent == Path("artifacts/k3f9m2qa")
    assert layout.attempt_number(folder) == number


@pytest.mark.parametrize("name", ["attempt-", "attempt-last", "0001", "checkpoints"])
def test_another_folder_is_of_no_attempt(name: str) -> None:
    assert layout.attempt_number(Path(name)) is None
