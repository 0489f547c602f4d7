"""Every failpoint kills and meets a full disk once, and a share of the rest: nothing is lost, nothing is run twice.

`python -m tests.faults.failpoints` walks the same cases, or those that are named.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults import cases, failpoints, scenarios

#: Tests that draw their cases.
_DRAWS = 2

_EVERYWHERE = list(scenarios.together(cases.everywhere()))


@pytest.fixture(scope="session")
def walker() -> Iterator[failpoints.Walker]:
    """A lane, warm for all tests of a process."""
    with failpoints.walker() as opened:
        yield opened


def _walk(walker: failpoints.Walker, chosen: list[cases.Case], *, postgres_url: str | None = None) -> None:
    results = [result for case in chosen for result in walker.walk(case, postgres_url=postgres_url)]
    bad = [f"python -m tests.faults.failpoints '{result.case}'\n{result.error}" for result in results if result.error]
    assert not bad, "\n\n".join(bad)


@pytest.mark.timeout(480)
@pytest.mark.parametrize("case", _EVERYWHERE, ids=str)
def test_a_kill_or_a_full_disk_anywhere_loses_nothing(case: cases.Case, walker: failpoints.Walker) -> None:
    _walk(walker, [case])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(_DRAWS))
def test_what_is_drawn_of_all_other_cases_loses_nothing(
    share: int, walker: failpoints.Walker, postgres_server: str
) -> None:
    seed = random.randrange(10**6)  # noqa: S311 - no secret
    drawn = cases.sample(seed)[share::_DRAWS]
    print(f"seed {seed}:", *drawn)  # noqa: T201 - for the report of a failure
    _walk(walker, drawn, postgres_url=postgres_server)


@pytest.mark.timeout(480)
def test_a_clock_that_jumps_by_hours_disturbs_no_job(walker: failpoints.Walker) -> None:
    _walk(walker, [cases.Case(places=(cases.CLOCK,), actions="jump")])


def test_every_place_is_in_a_test() -> None:
    once = [replace(case, places=(place,)) for case in _EVERYWHERE for place in case.places]
    assert sorted(map(str, once)) == sorted(map(str, cases.everywhere()))
