"""Which validation pictures are shown, and the sheet they are drawn on."""

from pathlib import Path

import pytest
from PIL import Image

from worker.training import samples


@pytest.fixture
def seen(tmp_path: Path) -> list[samples.Sample]:
    """Four pictures; the true class, 0, is ever more probable."""
    found = []
    for number, probability in enumerate((0.1, 0.4, 0.6, 0.9)):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(path)
        predicted = int(probability < 0.5)
        sure = max(probability, 1 - probability)
        found.append(
            samples.Sample(path=path, true=0, predicted=predicted, probability=sure, true_probability=probability)
        )
    return found


@pytest.mark.parametrize(("which", "expected"), [("worst", [0.1, 0.4]), ("best", [0.9, 0.6])])
def test_the_extreme_ones_come_first(seen: list[samples.Sample], which: str, expected: list[float]) -> None:
    assert [one.true_probability for one in samples.choose(seen[::-1], which, 2, seed=0)] == expected


def test_random_ones_follow_the_seed_and_are_no_more_than_there_are(seen: list[samples.Sample]) -> None:
    assert samples.choose(seen, "random", 3, seed=1) == samples.choose(seen, "random", 3, seed=1)
    assert set(samples.choose(seen, "random", 99, seed=1)) == set(seen)


def test_a_sheet_frames_right_and_wrong_and_cuts_long_names(seen: list[samples.Sample]) -> None:
    drawn = samples.sheet(seen, ["a name " * 20, "b"])
    assert drawn.size == (3 * 212, 2 * 248)
    assert drawn.getpixel((9, 100)) == (0xB4, 0x23, 0x18)
    assert drawn.getpixel((2 * 212 + 9, 100)) == (0x1A, 0x7F, 0x37)
    assert drawn.getpixel((212 + 100, 100)) == (60, 0, 0)
    assert all(drawn.getpixel((x, 220)) == (255, 255, 255) for x in range(203, 212))  # no name runs into the next
