"""How fast a recipe trains, by the nearest one that was measured: pure rules.

What lies between the two recipes widens the answer. Time goes with the multiply-adds where convolutions set the pace,
and with the bytes of the feature maps where memory does: it lies between what the one says and what the other says.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator import errors
from orchestrator.core import forecast, memory, networks, specs
from orchestrator.core.forecast import Interval

#: By what factor, less one, an answer may be wrong for each thing that was otherwise when it was measured. Progressive
#: sizes are none: what is measured is a picture of the whole size.
DOUBTS = {
    "host": 1.0,
    "precision": 1.0,
    "train": 1.0,
    "gpus": 1.0,
    "network": 0.5,
    "memory": 0.4,
    "image_size": 0.25,
    "layout": 0.25,
    "compile": 0.25,
    "batch_size": 0.2,
    "pipeline": 0.15,
    "accumulate": 0.1,
}

#: What a picture of the validation split costs of a training one's: the forward pass is a third of the multiply-adds.
FORWARD = Interval(low=0.22, high=0.45)

#: Changes that make a recipe less than so many times as fast are not worth a word.
WORTH = 1.1

#: Pictures from this side on have what the paper's stem leaves out of sight.
PHOTOGRAPH = 128

#: What a CPU trains photographs with in minutes an epoch.
SMALLER = 64
LARGER_BATCH = 16

#: Share of the time spent waiting for pictures from which on their pipeline counts, and what the fast one takes of it.
WAITS = 0.1
FAST_PIPELINE = 0.5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What epochs of a recipe took."""

    spec: specs.JobSpec
    layout: str
    precision: str
    compiled: bool = False
    train: tuple[float, ...]  #: seconds a training picture, of each epoch
    val: tuple[float, ...] = ()  #: the same of the validation split
    waiting: float = 0.0  #: share of the time that it waited for pictures
    job: str | None = None  #: that was measured; None: the table that orch brings along
    host: str | None = None  #: that it ran on
    here: bool = True  #: whether the recipe is for that host


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long a picture takes."""

    train: Interval  #: seconds
    val: Interval  #: seconds
    basis: Measured
    differs: tuple[str, ...]  #: in what the basis is another


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a training takes, in seconds."""

    epoch: Interval  #: the last one
    total: Interval


@dataclass(frozen=True, kw_only=True)
class Faster:
    """Changes to a recipe, and how many times as fast it is with them."""

    changes: Mapping[str, Any]
    times: float
    measured: bool  #: else reckoned, at the most
    why: str


def nearest(spec: specs.JobSpec, seen: Iterable[Measured]) -> Speed | None:
    """Return how fast a recipe is by the nearest of those that were measured, the first of equals; None without any."""
    found = [(doubt(differences(spec, one)), number, one) for number, one in enumerate(seen)]
    if not found:
        return None
    unsure, _, basis = min(found)
    train = _scaled(basis.train, spec, basis.spec, unsure)
    val = _scaled(basis.val, spec, basis.spec, unsure) if basis.val else _product(train, FORWARD)
    return Speed(train=train, val=val, basis=basis, differs=differences(spec, basis))


def differences(spec: specs.JobSpec, one: Measured) -> tuple[str, ...]:
    """Return in what a recipe that was measured is another; what `auto` decides is no difference."""
    differs = {name: getattr(spec, name) != getattr(one.spec, name) for name in forecast.PACE}
    differs["network"] = spec.shape != one.spec.shape
    differs["layout"] = spec.layout not in {"auto", one.layout}
    differs["precision"] = spec.precision not in {"auto", one.precision}
    differs["compile"] = spec.compile != one.compiled
    differs["host"] = not one.here
    if one.job is None:  # steps alone, which waited for no pictures
        differs["pipeline"] = False
    return tuple(name for name in DOUBTS if differs[name])


def doubt(differs: Iterable[str]) -> float:
    """Return by what factor an answer may be wrong, to either side."""
    return math.prod(1 + DOUBTS[name] for name in differs)


def plan(spec: specs.JobSpec, speed: Speed, counts: Mapping[str, int]) -> Plan:
    """Return how long the training takes with so many pictures in each split (train, val)."""
    measures = speed.val * counts["val"]
    kinds = Counter((spec.learning(epoch), spec.train_size(epoch)) for epoch in range(spec.epochs))
    total = forecast.NOTHING
    for (part, size), epochs in kinds.items():
        if part == "head":  # it sees features, which are computed once
            total += speed.val * (counts["train"] + counts["val"])
            continue
        smaller = _cost(spec.shape, size, spec.shape, spec.image_size)
        total += (_product(speed.train, smaller) * counts["train"] + measures) * epochs
    if spec.train == "head":
        return Plan(epoch=total * (1 / spec.epochs), total=total)
    return Plan(epoch=speed.train * counts["train"] + measures, total=total)


def faster(spec: specs.JobSpec, seen: Sequence[Measured], basis: Measured) -> Iterator[Faster]:
    """Yield what would make a recipe faster, the most first: as was measured, else by what a picture costs."""
    found = (_gain(spec, changes, seen) for changes in _changes(spec))
    worth = [one for one in (*found, _by_pipeline(spec, basis)) if one is not None and one.times >= WORTH]
    yield from sorted(worth, key=lambda one: -one.times)


def _changes(spec: specs.JobSpec) -> Iterator[dict[str, Any]]:
    if spec.stem == "cifar" and spec.image_size >= PHOTOGRAPH and spec.weights is None:
        yield {"stem": "imagenet"}
    size = max(SMALLER, networks.smallest_image(spec.shape))
    if spec.image_size > size:
        yield {"image_size": size, "batch_size": max(LARGER_BATCH, spec.batch_size)}
    if spec.layout == "contiguous":
        yield {"layout": "channels_last"}
    if not spec.compile:
        yield {"compile": True}
    if spec.memory != "plain":
        yield {"memory": "plain"}


def _gain(spec: specs.JobSpec, changes: dict[str, Any], seen: Sequence[Measured]) -> Faster | None:
    try:
        changed = specs.parse(spec.model_dump() | changes)
    except errors.InvalidSpec:
        return None
    for slow, fast in ((slow, fast) for slow in seen for fast in seen):
        if _answers(spec, slow, changes) and _answers(changed, fast, changes) and _fair(slow, fast, changes):
            return Faster(
                changes=changes, times=_mean(slow.train) / _mean(fast.train), measured=True, why=_said(slow, fast)
            )
    if not changes.keys() & {"stem", "image_size"}:
        return None  # what it wins, only a measurement knows
    times = _cost(spec.shape, spec.image_size, changed.shape, changed.image_size).low
    return Faster(changes=changes, times=times, measured=False, why="by its multiply-adds and the bytes of its maps")


def _answers(spec: specs.JobSpec, one: Measured, changes: Mapping[str, Any]) -> bool:
    """Whether a measurement is one of this recipe, as far as the comparison goes."""
    differs = set(differences(spec, one)) - {"host", "accumulate"}
    return not differs if "batch_size" in changes else not differs - {"batch_size"}


def _fair(slow: Measured, fast: Measured, changes: Mapping[str, Any]) -> bool:
    """Whether two measurements differ in nothing but the changes."""
    same_batch = "batch_size" in changes or slow.spec.batch_size == fast.spec.batch_size
    return same_batch and (slow.job is None, slow.host) == (fast.job is None, fast.host)


def _by_pipeline(spec: specs.JobSpec, basis: Measured) -> Faster | None:
    if spec.pipeline == "fast" or basis.spec.pipeline == "fast" or basis.waiting < WAITS:
        return None
    times = 1 / (1 - basis.waiting * (1 - FAST_PIPELINE))
    why = f"job {basis.job} waited {100 * basis.waiting:.0f} % of the time for pictures, which then take half as long"
    return Faster(changes={"pipeline": "fast"}, times=times, measured=False, why=why)


def _said(slow: Measured, fast: Measured) -> str:
    return "as orch's own table has it" if slow.job is None else f"as the jobs {slow.job} and {fast.job} measured"


def _cost(of: networks.Shape, size: int, against: networks.Shape, other_size: int) -> Interval:
    """Return what a picture costs one network through what another one costs the other."""
    if (of, size) == (against, other_size):
        return Interval(low=1, high=1)
    both = ((of, size), (against, other_size))
    macs, other_macs = (networks.cost(shape, image_size=side, classes=2).macs for shape, side in both)
    maps, other_maps = (memory.kept(shape, image_size=side, mode="plain") for shape, side in both)
    low, high = sorted((macs / other_macs, maps / other_maps))
    return Interval(low=low, high=high)


def _scaled(seconds: Sequence[float], spec: specs.JobSpec, of: specs.JobSpec, unsure: float) -> Interval:
    measured = forecast.spread(seconds)
    assert measured is not None  # noqa: S101 - nothing counts as measured without seconds
    cost = _cost(spec.shape, spec.image_size, of.shape, of.image_size)
    return _product(_product(measured, cost), Interval(low=1 / unsure, high=unsure))


def _product(one: Interval, other: Interval) -> Interval:
    return Interval(low=one.low * other.low, high=one.high * other.high)


def _mean(seconds: Sequence[float]) -> float:
    return sum(seconds) / len(seconds)
