"""In which order tests run, and in which of several processes."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest


def item(file: str, number: int, limit: float | None = None) -> Any:
    marker = SimpleNamespace(args=(limit,)) if limit else None
    return SimpleNamespace(nodeid=f"{file}.py::test_{number}", get_closest_marker=lambda _: marker)


def shares(items: list[Any], processes: int) -> list[list[str]]:
    """Return what each process is given at first, as pytest-xdist does."""
    config: Any = SimpleNamespace(workerinput={"workercount": processes})
    conftest.pytest_collection_modifyitems(config, items)
    names = [each.nodeid for each in items]
    given = []
    for number in range(processes, 0, -1):
        given.append(names[: len(names) // number])
        names = names[len(names) // number :]
    return given


@pytest.mark.parametrize("count", range(60, 68))
def test_the_longest_begin_early_each_beside_those_of_its_file(count: int) -> None:
    longest = [item(f"long_{number % 5}", number, limit=600) for number in range(8)]
    items = [item(f"short_{number // 5}", number) for number in range(count)] + longest
    before = sorted(each.nodeid for each in items)
    given = shares(items, 4)
    assert sorted(name for share in given for name in share) == before
    places = [(name.partition("::")[0], number) for number, share in enumerate(given) for name in share]
    assert len({place for place in places if place[0].startswith("long")}) == 5  # one process for each file
    assert sum(share[0].startswith("long") for share in given) == 2
    for share in given:
        at = [place for place, name in enumerate(share) if name.startswith("long")]
        assert at == list(range(at[0], at[0] + len(at)))
        assert at[-1] < len(share) * 0.8
        assert at[0] == 0 or share[at[0] - 1].partition("::")[0] != share[at[-1] + 1].partition("::")[0]


@pytest.mark.parametrize("processes", [1, 4])
def test_a_few_all_run(processes: int) -> None:
    items = [item("long", number, limit=600) for number in range(3)] + [item("short", 0)]
    given = shares(items, processes)
    assert sum(map(len, given)) == 4
