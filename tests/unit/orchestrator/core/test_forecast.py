from typing import Any

import pytest

from orchestrator.core import forecast, jobs, networks, specs
from tests.support.jobs import job


def epochs(*seconds: float) -> list[jobs.EpochMetric]:
    splits: tuple[tuple[jobs.Split, float], ...] = (("train", 0.75), ("val", 0.25))
    return [
        jobs.EpochMetric(epoch=number, split=split, loss=1, accuracy=0, images=1, seconds=share * whole)
        for number, whole in enumerate(seconds, start=1)
        for split, share in splits
    ]


def between(low: float, high: float) -> forecast.Interval:
    return forecast.Interval(low=low, high=high)


def on_one(low: float, high: float) -> forecast.Work:
    return between(low, high), 1


def test_an_epoch_takes_as_long_as_the_recent_ones() -> None:
    assert forecast.an_epoch([]) is None
    assert forecast.epoch_seconds(epochs(4, 8, 6)) == [4, 8, 6]
    assert forecast.epoch_seconds(epochs(100, *[5] * forecast.RECENT)) == [5] * forecast.RECENT
    assert forecast.an_epoch(epochs(4, 8, 6)) == forecast.spread([4, 8, 6])


def test_what_was_measured_once_says_less_than_what_was_measured_often() -> None:
    assert forecast.spread([]) is None
    assert forecast.spread([10]) == between(8, 12)
    assert forecast.spread([10, 10, 10, 10]) == between(9.5, 10.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"gpus": 2},
        {"memory": "lean"},
        {"bottleneck": 0},
        {"stem_channels": 256},
        {"dropout": 0.2},
        {"precision": "bf16"},
        {"pipeline": "fast"},
        {"layout": "channels_last"},
        {"compile": True},
        {"progressive_sizes": (32,), "progressive_until": (0.5,)},
        {"batch_size": 16, "accumulate": 2},
        {"data": "elsewhere.zip"},
    ],
    ids=str,
)
def test_recipes_of_another_pace_are_not_taken_for_alike(fields: dict[str, Any]) -> None:
    usual = {"data": "pictures.zip", "network": "densenet_bc_40_12", "image_size": 64}
    plain, other = specs.parse(usual), specs.parse(usual | fields)
    assert forecast.likeness(job(spec=other)) != forecast.likeness(job(spec=plain))


def test_what_has_no_part_in_the_pace_leaves_recipes_alike() -> None:
    by_name = specs.parse({"network": "densenet_bc_40_12"})
    by_numbers = specs.parse({"lr": 0.3, "seed": 7, "epochs": 2} | by_name.model_dump(include=set(networks.FIELDS)))
    assert forecast.likeness(job(spec=by_name)) == forecast.likeness(job(spec=by_numbers))


def test_what_is_left_never_falls_below_nothing() -> None:
    assert between(4, 8).after(5) == between(0, 3)
    assert between(4, 8).with_(between(5, 6)) == between(5, 8)


def test_the_next_job_begins_when_the_first_device_is_free() -> None:
    assert forecast.begin([on_one(10, 20), on_one(5, 30)], [], slots=2) == between(5, 20)


def test_a_free_device_takes_it_at_once() -> None:
    assert forecast.begin([on_one(10, 20)], [], slots=2) == forecast.NOTHING


def test_each_job_ahead_takes_the_device_that_is_free_first() -> None:
    assert forecast.begin([on_one(10, 10)], [on_one(3, 3), on_one(4, 4)], slots=1) == between(17, 17)
    assert forecast.begin([on_one(10, 10)], [on_one(3, 3), on_one(4, 4)], slots=2) == between(7, 7)
    assert forecast.begin([], [on_one(1, 2)] * 4, slots=2) == between(2, 4)


def test_without_a_device_nobody_can_say() -> None:
    assert forecast.begin([], [], slots=0) is None


def test_a_job_on_several_devices_waits_for_all_of_them_and_takes_them_all() -> None:
    gang = (between(5, 5), 2)
    assert forecast.begin([on_one(10, 20)], [], slots=2, wanted=2) == between(10, 20)
    assert forecast.begin([gang], [], slots=2) == between(5, 5)
    assert forecast.begin([on_one(10, 10)], [gang], slots=2) == between(15, 15)
    assert forecast.begin([], [gang], slots=3) == forecast.NOTHING
    assert forecast.begin([], [], slots=1, wanted=2) is None
