"""How long a recipe takes by the nearest that was measured, and what would make it faster."""

from typing import Any

import pytest

from orchestrator.core import networks, priors, specs, speed

COUNTS = {"train": 100, "val": 10}


def spec(**fields: Any) -> specs.JobSpec:
    return specs.parse({"image_size": 64, "batch_size": 16, **fields})


def measured(*seconds: float, job: str = "job", **fields: Any) -> speed.Measured:
    own = {name: fields.pop(name) for name in ("here", "waiting", "val", "host") if name in fields}
    layout, compiled = fields.get("layout", "contiguous"), fields.get("compile", False)
    return speed.Measured(
        spec=spec(**fields), layout=layout, precision="fp32", compiled=compiled, train=seconds, job=job, **own
    )


def found(wanted: specs.JobSpec, *seen: speed.Measured) -> speed.Speed:
    nearest = speed.nearest(wanted, seen)
    assert nearest is not None
    return nearest


def test_the_same_recipe_takes_what_it_took() -> None:
    one = found(spec(), measured(0.9, 1.0, 1.1, val=(0.3, 0.3, 0.3)))
    assert one.differs == ()
    assert (one.train.low, one.train.high) == pytest.approx((0.9 * (1 - 0.2 / 3), 1.1 * (1 + 0.2 / 3)))
    plan = speed.plan(spec(epochs=7), one, COUNTS)
    assert plan.epoch.high == pytest.approx(100 * one.train.high + 10 * one.val.high)
    assert plan.total.low == pytest.approx(7 * plan.epoch.low)


def test_nothing_is_known_where_nothing_was_measured() -> None:
    assert speed.nearest(spec(), []) is None


@pytest.mark.parametrize(
    ("fields", "differs"),
    [
        ({"batch_size": 8}, {"batch_size"}),
        ({"network": "densenet_bc_40_12"}, {"network"}),
        ({"memory": "lean"}, {"memory"}),
        ({"layout": "channels_last"}, {"layout"}),
        ({"compile": True}, {"compile"}),
        ({"image_size": 32}, {"image_size"}),
        ({"gpus": 2}, {"gpus"}),
        ({"accumulate": 4}, {"accumulate"}),
        ({"here": False}, {"host"}),
    ],
    ids=str,
)
def test_what_was_measured_otherwise_says_less_and_is_named(fields: dict[str, Any], differs: set[str]) -> None:
    same, other = found(spec(), measured(1.0)), found(spec(), measured(1.0, **fields))
    assert set(other.differs) == differs
    width = other.train.high / other.train.low
    assert width > 1.2 * (same.train.high / same.train.low)
    # Whatever is unsure, the same one is taken before it.
    assert found(spec(), measured(9.0, **fields), measured(1.0)).basis.train == (1.0,)


def test_auto_is_no_difference() -> None:
    assert found(spec(layout="auto", precision="auto"), measured(1.0, layout="channels_last")).differs == ()


def test_time_goes_with_what_a_picture_costs() -> None:
    small, large = found(spec(), measured(1.0)), found(spec(image_size=128), measured(1.0))
    middle = (large.train.low * large.train.high) ** 0.5 / (small.train.low * small.train.high) ** 0.5
    assert middle == pytest.approx(4, rel=0.02)


def test_smaller_sizes_and_a_head_alone_take_less() -> None:
    one = found(spec(), measured(1.0))
    whole = speed.plan(spec(epochs=10), one, COUNTS).total
    growing = spec(epochs=10, progressive_sizes=(32,), progressive_until=(0.5,))
    assert speed.plan(growing, one, COUNTS).total.low == pytest.approx(whole.low * (0.5 + 0.5 / 4), rel=0.05)
    head = spec(epochs=10, weights="/x.pth", train="head")
    assert speed.plan(head, one, COUNTS).total.low == pytest.approx(110 * one.val.low)


@pytest.mark.parametrize("change", [{"layout": "channels_last"}, {"compile": True}], ids=str)
def test_what_would_be_faster_comes_from_measurements(change: dict[str, Any]) -> None:
    slow, fast = measured(1.0, job="a"), measured(0.5, job="b", **change)
    (first, *_) = (one for one in speed.faster(spec(), [slow, fast], slow) if one.changes == change)
    assert (first.times, first.measured, first.why) == (2.0, True, "as the jobs a and b measured")
    assert not any(one.changes == change for one in speed.faster(spec(), [slow], slow))
    # Jobs on two hosts, or of two batch sizes, compare more than the change.
    for other in ({"host": "elsewhere"}, {"batch_size": 32}):
        unfair = measured(0.5, job="b", **change, **other)
        assert not any(one.changes == change for one in speed.faster(spec(), [slow, unfair], slow))


def test_what_nobody_measured_is_reckoned_by_what_a_picture_costs() -> None:
    wanted = spec(image_size=224)
    changes = {one.changes["stem"]: one for one in speed.faster(wanted, [], measured(1.0)) if "stem" in one.changes}
    imagenet = specs.parse({"stem": "imagenet", "image_size": 224}).shape
    macs = [networks.cost(shape, image_size=224, classes=2).macs for shape in (wanted.shape, imagenet)]
    assert not changes["imagenet"].measured
    assert 8 < changes["imagenet"].times <= macs[0] / macs[1]


def test_the_fast_pipeline_is_named_where_pictures_are_waited_for() -> None:
    waits = measured(1.0, waiting=0.5)
    assert [one.times for one in speed.faster(spec(), [waits], waits) if "pipeline" in one.changes] == [4 / 3]
    idle = measured(1.0, waiting=0.01)
    assert not any("pipeline" in one.changes for one in speed.faster(spec(), [idle], idle))


def test_no_pipeline_slowed_what_the_table_has_and_a_job_has_its_own() -> None:
    fast = specs.JobSpec(pipeline="fast")
    assert found(fast, *priors.TABLE).differs == ("host",)
    assert {"compile": True} in [one.changes for one in speed.faster(fast, priors.TABLE, measured(1.0))]
    assert found(spec(pipeline="fast"), measured(1.0)).differs == ("pipeline",)


def test_a_recipe_that_is_as_fast_as_can_be_gets_no_advice() -> None:
    best = spec(network="densenet121_imagenet", layout="channels_last")  # `compile` wins less than is worth a word
    assert list(speed.faster(best, priors.TABLE, measured(1.0))) == []


def test_the_table_knows_the_notebooks_recipe_and_a_smaller_one() -> None:
    notebook = specs.JobSpec()
    one = found(notebook, *priors.TABLE)
    assert one.differs == ("host",)
    assert one.train.low < 1.858 < one.train.high
    gains = {tuple(each.changes): each for each in speed.faster(notebook, priors.TABLE, one.basis)}
    assert gains["image_size", "batch_size"].measured
    assert gains["image_size", "batch_size"].times == pytest.approx(1.858 / 0.1438)
