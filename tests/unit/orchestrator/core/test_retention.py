import pytest

from orchestrator.core import jobs, retention

#: Steps of the line, the best one's, and the steps that go.
RULES: list[tuple[list[int], int | None, list[int]]] = [
    ([], None, []),
    ([10], 10, []),
    ([10, 20], None, []),
    ([10, 20, 30], None, [10]),
    ([10, 20, 30], 10, []),  # the best stays, however old
    ([10, 20, 30], 30, [10]),
    ([10, 20, 30, 40, 50], 20, [30, 10]),  # newest first
]


def point(step: int, *, best: bool) -> jobs.Checkpoint:
    return jobs.Checkpoint(attempt=1, epoch=0, step=step, path=f"s{step}", bytes=1, sha256="0" * 64, best=best)


@pytest.mark.parametrize(("steps", "best", "gone"), RULES)
def test_what_retention_lets_go(steps: list[int], best: int | None, gone: list[int]) -> None:
    line = [point(step, best=step == best) for step in steps]
    for order in (line, line[::-1]):
        assert [checkpoint.step for checkpoint in retention.superfluous(order)] == gone
