"""The parts of all ranks put together are the whole, each picture once."""

import pytest

from worker.data import shares

BATCHES = [(4, 4, 2), (8,), (3, 3), (2,), (5, 4)]


def of_all(ranks: int) -> list[shares.Share]:
    return [shares.Share(rank=rank, ranks=ranks) for rank in range(ranks)]


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("neighbours", [False, True])
def test_every_picture_of_every_batch_is_learnt_from_once(
    batches: tuple[int, ...], ranks: int, neighbours: bool
) -> None:
    learnt, sizes = [], []
    for share in of_all(ranks):
        loaded = share.loaded(batches, neighbours=neighbours)
        learnt += [loaded[place] for place in share.learnt(batches, neighbours=neighbours)]
        sizes.append(share.sizes(batches))
    assert sorted(learnt) == list(range(sum(batches)))
    assert tuple(sum(column) for column in zip(*sizes, strict=True)) == batches
    assert all(max(column) - min(column) <= 1 for column in zip(*sizes, strict=True))


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_is_learnt_from_has_the_picture_before_it_in_the_step_beside_it(
    batches: tuple[int, ...], ranks: int
) -> None:
    for share in of_all(ranks):
        loaded = share.loaded(batches, neighbours=True)
        for place in share.learnt(batches, neighbours=True):
            assert loaded[place - 1] == (loaded[place] - 1) % sum(batches)


def test_one_rank_has_all() -> None:
    assert shares.ALONE.loaded((4, 2), neighbours=False) == list(range(6))


def test_a_rank_without_a_picture_loads_one_and_learns_from_none() -> None:
    share = shares.Share(rank=0, ranks=3)
    assert share.loaded((2,), neighbours=True) == [0]
    assert share.learnt((2,), neighbours=True) == []


@pytest.mark.parametrize("turn", [0, 1, 5])
def test_whole_batches_are_dealt_once_in_any_turn(turn: int) -> None:
    dealt = [share.dealt(7, turn=turn) for share in of_all(3)]
    assert sorted(number for each in dealt for number in each) == list(range(7))
    assert max(len(each) for each in dealt) == shares.ALONE.rounds(7) // 3 + 1 == of_all(3)[0].rounds(7)
