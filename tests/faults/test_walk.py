"""Every failpoint kills and meets a full disk once, and a share of the rest: nothing is lost, nothing is run twice.

`python -m tests.faults.failpoints` walks the same cases, or those that are named.
"""

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.faults import cases, failpoints

#: Cases of one test: few enough to spread over several processes.
_MOST = 6

#: Tests that draw their cases.
_DRAWS = 3


def _groups() -> dict[str, list[cases.Case]]:
    """Return the cases of every place, by the words that their places begin with."""
    found = {}
    for words, group in itertools.groupby(cases.everywhere(), key=lambda case: case.place.rpartition(".")[0]):
        for number, start in enumerate(range(0, len(them := list(group)), _MOST), 1):
            found[f"{words}-{number}"] = them[start : start + _MOST]
    return found


_GROUPS = _groups()


@pytest.fixture(scope="session")
def walker() -> Iterator[failpoints.Walker]:
    """A lane, warm for all tests of a process."""
    with failpoints.walker() as opened:
        yield opened


def _walk(walker: failpoints.Walker, chosen: list[cases.Case], *, postgres_url: str | None = None) -> None:
    results = [result for case in chosen for result in walker.walk(case, postgres_url=postgres_url)]
    bad = [f"python -m tests.faults.failpoints '{result.case}'\n{result.error}" for result in results if result.error]
    assert not bad, "\n\n".join(bad)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("words", _GROUPS)
def test_a_kill_or_a_full_disk_anywhere_loses_nothing(words: str, walker: failpoints.Walker) -> None:
    _walk(walker, _GROUPS[words])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(_DRAWS))
def test_what_is_drawn_of_all_other_cases_loses_nothing(
    share: int, walker: failpoints.Walker, postgres_server: str
) -> None:
    seed = random.randrange(10**6)  # noqa: S311 - no secret
    drawn = cases.sample(seed)[share::_DRAWS]
    print(f"seed {seed}:", *drawn)  # noqa: T201 - for the report of a failure
    _walk(walker, drawn, postgres_url=postgres_server)


def test_every_place_is_in_a_test() -> None:
    assert [case for group in _GROUPS.values() for case in group] == cases.everywhere()
