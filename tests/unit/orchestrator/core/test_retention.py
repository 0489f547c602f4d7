import pytest

from orchestrator.core import jobs, retention, specfields

#: Steps of the line, the best one's, how many are kept, and the steps that go.
RULES: list[tuple[list[int], int | None, specfields.Keep, list[int]]] = [
    ([], None, 2, []),
    ([10], 10, 2, []),
    ([10, 20], None, 2, []),
    ([10, 20, 30], None, 2, [10]),
    ([10, 20, 30], 10, 2, []),  # the best stays, however old
    ([10, 20, 30], 30, 2, [10]),
    ([10, 20, 30, 40, 50], 20, 2, [30, 10]),  # newest first
    ([10, 20, 30], 10, 1, [20]),
    ([10, 20, 30, 40, 50], 50, 4, [10]),
    ([10, 20, 30, 40, 50], 50, 9, []),
    ([10, 20, 30, 40, 50], 50, "all", []),
]


def point(step: int, *, best: bool) -> jobs.Checkpoint:
    return jobs.Checkpoint(attempt=1, epoch=0, step=step, path=f"s{step}", bytes=1, sha256="0" * 64, best=best)


@pytest.mark.parametrize(("steps", "best", "keep", "gone"), RULES)
def test_what_retention_lets_go(steps: list[int], best: int | None, keep: specfields.Keep, gone: list[int]) -> None:
    line = [point(step, best=step == best) for step in steps]
    for order in (line, line[::-1]):
        assert [checkpoint.step for checkpoint in retention.superfluous(order, keep=keep)] == gone
