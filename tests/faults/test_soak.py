"""Forty jobs under forty blows, twelve on PostgreSQL: what people were told is so, the oracle finds nothing."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.soak import report, run


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, which PostgreSQL's user may enter, too."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("database", "many"), [("sqlite", 40), ("postgresql", 12)])
def test_nothing_is_lost_and_nothing_is_run_twice(database: str, many: int, folder: Path) -> None:
    seed = random.randrange(10**6)  # noqa: S311 - pytest's own seed
    plan = report.Plan(jobs=many, kills=many, seed=seed, database=database)
    outcome = run.soak(plan, folder=folder)
    said = report.markdown(outcome)
    print(said)  # noqa: T201 - the seed, and what was struck, for whoever reads of a failure
    assert outcome.faults == [], said
    assert sum(outcome.states.values()) == plan.jobs
    assert len(outcome.blows) == plan.kills
    assert outcome.attempts["lost"] + outcome.attempts["failed"] > 0  # the blows were felt
