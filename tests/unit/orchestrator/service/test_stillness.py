import pytest

from orchestrator.service.reconcile import Stillness


def _look(still: Stillness, looks: list[tuple[float, dict[str, tuple[int, ...]]]]) -> set[str]:
    dead: set[str] = set()
    for at, beats in looks:
        dead = still.dead(beats, at)
    return dead


@pytest.mark.parametrize(
    ("beats", "dead"),
    [
        ([1, 1, 1, 1], {"job"}),  # stood still for 30 s
        ([1, 1, 1, 2], set()),  # moved at the last look
        ([1, 2, 2, 2], set()),  # has stood still for 20 s only
    ],
)
def test_what_stands_still_for_the_time_is_dead(beats: list[int], dead: set[str]) -> None:
    looks: list[tuple[float, dict[str, tuple[int, ...]]]] = [
        (10.0 * number, {"job": (1, beat)}) for number, beat in enumerate(beats)
    ]
    assert _look(Stillness(30), looks) == dead


def test_a_new_attempt_is_another_lease_even_at_the_same_beat() -> None:
    looks: list[tuple[float, dict[str, tuple[int, ...]]]] = [
        (0, {"job": (1, 0)}),
        (14, {"job": (1, 0)}),
        (28, {"job": (2, 0)}),
        (30, {"job": (2, 0)}),
    ]
    assert _look(Stillness(30), looks) == set()


def test_a_gap_between_looks_kills_nobody() -> None:
    still = Stillness(30)
    still.dead({"job": (1, 0)}, 0)
    assert still.dead({"job": (1, 0)}, 3600) == set()
    assert still.dead({"job": (1, 0)}, 3614) == set()
    assert still.dead({"job": (1, 0)}, 3628) == set()
    assert still.dead({"job": (1, 0)}, 3630) == {"job"}


def test_what_has_gone_is_forgotten() -> None:
    still = Stillness(30)
    still.dead({"job": (1, 0)}, 0)
    still.dead({}, 14)
    still.dead({"job": (1, 0)}, 28)
    assert still.dead({"job": (1, 0)}, 31) == set()
