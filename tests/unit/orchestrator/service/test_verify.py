import pytest

from orchestrator.core import jobs
from orchestrator.service import verify


def point(step: int, epoch: int = 0) -> jobs.Checkpoint:
    return jobs.Checkpoint(attempt=1, epoch=epoch, step=step, path=f"{step}", bytes=1, sha256="0" * 64)


@pytest.mark.parametrize(
    ("steps", "furthest", "asked", "part"),
    [
        ([30, 20, 5], 30, {}, (20, 30, 30)),  # the two that are nearest to each other
        ([30, 20, 5], 30, {"steps": 4}, (20, None, 24)),  # too few to come to the next one
        ([30, 20, 5], 30, {"steps": 10}, (20, 30, 30)),
        ([30, 20, 5], 30, {"from_start": True}, (None, 5, 5)),
        ([30], 30, {}, (None, 30, 30)),  # one alone: from the start
        ([], 7, {}, (None, None, 7)),  # none: what is known of its losses
        ([], 7, {"steps": 3}, (None, None, 3)),
        ([], 0, {}, None),
    ],
)
def test_the_shortest_part_is_chosen(
    steps: list[int], furthest: int, asked: dict[str, int], part: tuple[int | None, int | None, int] | None
) -> None:
    found = verify.choose(
        [point(step) for step in steps],
        furthest,
        **{"steps": None, "from_start": False, **asked},  # type: ignore[arg-type]  # by name
    )
    told = found and (found.begin and found.begin.step, found.until and found.until.step, found.last_step)
    assert told == part
