"""Each guard can still be switched off, and one of them is: `python -m tests.faults.sabotage` does all."""

import ast
import random
from pathlib import Path

import pytest

from docs import markers
from tests.faults import sabotage

QUICK = [guard for guard in sabotage.GUARDS if not guard.long]


@pytest.mark.parametrize("guard", sabotage.GUARDS, ids=lambda guard: guard.name)
def test_every_change_still_applies(guard: sabotage.Guard) -> None:
    for file, old, new in sabotage.changes(guard):
        changed = sabotage.applied((sabotage.ROOT / file).read_text(encoding="utf-8"), old, new)
        ast.parse(changed)


@pytest.mark.parametrize("guard", sabotage.GUARDS, ids=lambda guard: guard.name)
def test_every_test_is_still_there(guard: sabotage.Guard, request: pytest.FixtureRequest) -> None:
    for node in guard.tests:
        file, _, test = node.partition("::")
        name, _, parameters = test.partition("[")
        assert f"def {name}(" in (sabotage.ROOT / file).read_text(encoding="utf-8") or not test
        if parameters:
            forms = {item.nodeid for item in request.session.items if item.nodeid.startswith(f"{file}::{name}[")}
            assert node in forms or len(forms) < 2  # this run has chosen at most one of them


def test_names_are_unique() -> None:
    assert len({guard.name for guard in sabotage.GUARDS}) == len(sabotage.GUARDS)


def test_a_change_that_no_longer_fits_is_told() -> None:
    with pytest.raises(ValueError, match="stands there 0 times"):
        sabotage.applied("text", "other", "")
    with pytest.raises(ValueError, match="stands there 2 times"):
        sabotage.applied("aa", "a", "")


def test_a_table_keeps_the_rows_of_guards_that_were_not_switched_off_now(tmp_path: Path) -> None:
    first, second, *_ = sabotage.GUARDS
    page = tmp_path / "page.md"
    page.write_text("<!-- sabotage -->\n<!-- /sabotage -->\n", encoding="utf-8")
    rows = {name: f"| {name} | … | **nobody** | 1.0 |" for name in ("gone", second.name, first.name)}
    markers.write("sabotage", sabotage.table(rows), file=page)
    assert sabotage.earlier(page) == {first.name: rows[first.name], second.name: rows[second.name]}


@pytest.mark.timeout(480)
def test_a_guard_that_is_off_is_missed() -> None:
    guard = random.choice(QUICK)  # noqa: S311 - by pytest's own seed, which its first lines name
    with sabotage.checkout() as copy:
        result = sabotage.without(guard, copy, seconds=4 * sabotage.TEST_SECONDS)  # others take the cores
    assert result.noticed_by is not None, f"{guard.name}: {result.output}"
