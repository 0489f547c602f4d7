import itertools
from typing import Any, get_args

import pytest

from orchestrator.core import memory, networks, specfields, specs

#: Network, pixels, batch, what else its recipe says, and the peak of its process in MiB as `python -m benchmarks.peaks`
#: measured it: torch 2.14 on x86-64, two threads, a CPU that has no instructions for bf16 and fp16.
MEASURED: list[tuple[str, int, int, dict[str, Any], int]] = [
    ("densenet_tiny", 16, 2, {}, 455),
    ("densenet121", 64, 4, {}, 1277),
    ("densenet121", 64, 12, {}, 2526),
    ("densenet121", 64, 8, {"memory": "balanced"}, 1432),
    ("densenet121", 64, 8, {"memory": "lean"}, 1160),
    ("densenet_bc_100_12", 32, 64, {}, 2926),
    ("densenet_bc_100_12", 32, 64, {"memory": "balanced"}, 1907),
    ("densenet_bc_100_12", 32, 64, {"memory": "lean"}, 1725),
    ("densenet_bc_40_12", 32, 64, {"precision": "bf16"}, 1008),
    ("densenet_bc_40_12", 32, 64, {"precision": "bf16", "memory": "balanced"}, 1093),
    ("densenet_bc_40_12", 32, 64, {"precision": "bf16", "memory": "lean"}, 885),
    ("densenet121_imagenet", 224, 8, {"train": "head"}, 759),
    ("densenet121_imagenet", 224, 8, {"train": "last-block"}, 660),
    ("densenet_bc_100_12", 32, 64, {"train": "last-block"}, 858),
    ("densenet121", 64, 12, {"train": "last-block"}, 843),
    # What follows was not fitted to.
    ("densenet121", 32, 16, {"memory": "lean"}, 889),
    ("densenet121", 32, 64, {"memory": "lean"}, 1672),
    ("densenet121", 224, 4, {}, 8820),
    ("densenet121_imagenet", 224, 4, {}, 1168),
    ("densenet121_imagenet", 224, 8, {}, 1761),
    ("densenet121_imagenet", 224, 4, {"memory": "balanced"}, 921),
    ("densenet121_imagenet", 96, 16, {"memory": "lean"}, 774),
    ("densenet121", 32, 16, {"precision": "bf16"}, 1239),
    ("densenet121", 32, 16, {"precision": "bf16", "memory": "balanced"}, 1053),
    ("densenet121_imagenet", 64, 16, {"precision": "bf16", "memory": "lean"}, 726),
    ("densenet_bc_40_12", 32, 64, {"precision": "fp16", "memory": "lean"}, 948),
    ("densenet121", 64, 12, {"train": "head"}, 1024),
    ("densenet_40_12", 32, 32, {"memory": "balanced"}, 916),
    # Compiled, fitted to: on a CPU that has instructions for bf16.
    ("densenet121", 64, 16, {"compile": True}, 2477),
    ("densenet121", 64, 64, {"compile": True}, 8499),
    ("densenet121", 128, 8, {"compile": True}, 4604),
    ("densenet121", 224, 2, {"compile": True}, 3551),
    ("densenet121_imagenet", 224, 16, {"compile": True}, 2289),
    ("densenet201_imagenet", 224, 8, {"compile": True}, 1987),
    ("densenet_bc_100_12", 32, 64, {"compile": True}, 2132),
    ("densenet_40_12", 32, 64, {"compile": True}, 1343),
    ("densenet_tiny", 64, 64, {"compile": True}, 581),
    ("densenet121", 64, 16, {"compile": True, "precision": "bf16"}, 1759),
    ("densenet121_imagenet", 224, 16, {"compile": True, "precision": "bf16"}, 1465),
    ("densenet_bc_40_48", 32, 32, {"compile": True, "precision": "bf16"}, 1126),
    ("densenet_bc_40_36", 32, 32, {"compile": True, "precision": "bf16"}, 970),
    # The same, not fitted to.
    ("densenet161_imagenet", 224, 8, {"compile": True}, 2440),
    ("densenet_100_12", 32, 32, {"compile": True}, 2575),
    ("densenet121", 32, 64, {"compile": True}, 2491),
    ("densenet169_imagenet", 128, 32, {"compile": True, "precision": "bf16"}, 1489),
]


@pytest.mark.parametrize(("network", "pixels", "batch", "more", "measured"), MEASURED)
def test_the_peak_is_the_measured_one_within_ten_percent(
    network: str, pixels: int, batch: int, more: dict[str, Any], measured: int
) -> None:
    weights = "/some.pth" if "train" in more else None
    spec = specs.JobSpec(network=network, image_size=pixels, batch_size=batch, weights=weights, **more)
    assert memory.peak(spec, mode=spec.memory) / 2**20 == pytest.approx(measured, rel=0.1)


def test_auto_takes_what_fp32_does_at_the_most_and_both_kinds_of_halves_take_the_same() -> None:
    of = {one: memory.peak(specs.JobSpec(precision=one), mode="plain") for one in get_args(specfields.Precision)}
    assert of["bf16"] == of["fp16"] < of["fp32"] == of["auto"]


def test_an_optimizer_with_less_state_takes_less() -> None:
    adam, sgd = specs.JobSpec(), specs.JobSpec(optimizer="sgd")
    plain = specs.JobSpec(optimizer="sgd", momentum=0)
    peaks = [memory.peak(spec, mode="lean") for spec in (plain, sgd, adam)]
    parameters = networks.cost(adam.shape, image_size=224, classes=2).parameters
    assert [later - earlier for earlier, later in itertools.pairwise(peaks)] == [
        4 * 2 * parameters
    ] * 2  # a snapshot has it again


def test_the_largest_batch_is_the_last_power_of_two_that_fits() -> None:
    spec = specs.JobSpec(network="densenet121", image_size=64)
    peaks = {batch: memory.peak(spec.model_copy(update={"batch_size": batch}), mode="plain") for batch in (16, 32)}
    assert memory.largest_batch(spec, room=peaks[32]) == 32
    assert memory.largest_batch(spec, room=peaks[32] - 1) == 16
    leaner = spec.model_copy(update={"memory": "lean"})
    assert (memory.largest_batch(leaner, room=peaks[32] - 1) or 0) > 16
    assert memory.largest_batch(spec, room=2**50) == memory.LARGEST_BATCH
    assert memory.largest_batch(spec, room=2**20) is None


def test_the_largest_batch_leaves_an_epoch_its_steps() -> None:
    spec = specs.JobSpec(network="densenet_tiny", image_size=16)
    assert memory.largest_batch(spec, room=2**50, pictures=300) == 32
    assert memory.largest_batch(spec, room=2**50, pictures=5) == 2
    assert memory.largest_batch(spec.model_copy(update={"accumulate": 4}), room=2**50, pictures=300) == 8


def test_several_devices_share_the_batch() -> None:
    spec = specs.JobSpec(batch_size=8)
    assert memory.peak(spec.model_copy(update={"gpus": 2}), mode="plain") == memory.peak(
        spec.model_copy(update={"batch_size": 4}), mode="plain"
    )
    alone = memory.largest_batch(spec, room=memory.peak(spec, mode="plain"))
    together = memory.largest_batch(spec.model_copy(update={"gpus": 4}), room=memory.peak(spec, mode="plain"))
    assert (alone, together) == (8, 32)
