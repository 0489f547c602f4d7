import contextlib
import re
from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import networks, specs


def shape(**fields: Any) -> networks.Shape:
    usual = {name: specs.JobSpec.model_fields[name].default for name in networks.FIELDS}
    return networks.Shape(**usual | fields)


@pytest.mark.parametrize(
    ("blocks", "stem", "least"),
    [
        ((6, 12, 24, 16), "cifar", 8),  # three transitions halve three times
        ((6, 12, 24, 16), "imagenet", 29),  # the stem rounds up twice: 29 → 15 → 8
        ((16, 16, 16), "cifar", 4),
        ((1, 1), "cifar", 2),
        ((6,), "cifar", 1),
        ((6,), "imagenet", 1),
    ],
)
def test_smallest_image(blocks: tuple[int, ...], stem: networks.Stem, least: int) -> None:
    assert networks.smallest_image(shape(blocks=blocks, stem=stem)) == least


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    # As torchvision's weights state them: at 224 px, for 1,000 classes.
    [
        ("densenet121_imagenet", 7_978_856, 2.834),
        ("densenet161_imagenet", 28_681_000, 7.728),
        ("densenet169_imagenet", 14_149_480, 3.36),
        ("densenet201_imagenet", 20_013_928, 4.291),
    ],
)
def test_imagenet_networks_cost_what_is_published(name: str, parameters: int, gmacs: float) -> None:
    cost = networks.cost(specs.JobSpec(network=name).shape, image_size=224, classes=1000)
    assert cost.parameters == parameters
    assert round(cost.macs / 1e9, 3) == gmacs


@pytest.mark.parametrize(
    ("name", "millions"),
    # The paper's table 2; the wide ones are in the authors' repository, https://github.com/liuzhuang13/DenseNet.
    [
        ("densenet_40_12", 1.0),
        ("densenet_100_12", 7.0),
        ("densenet_100_24", 27.2),
        ("densenet_bc_100_12", 0.8),
        ("densenet_bc_250_24", 15.3),
        ("densenet_bc_190_40", 25.6),
        ("densenet_bc_40_36", 1.5),
        ("densenet_bc_40_48", 2.7),
    ],
)
def test_cifar_networks_have_the_published_parameters(name: str, millions: float) -> None:
    cost = networks.cost(specs.JobSpec(network=name).shape, image_size=32, classes=10)
    assert round(cost.parameters / 1e6, 1) == millions


def test_the_notebooks_network_costs_what_was_counted() -> None:
    cost = networks.cost(specs.JobSpec().shape, image_size=224, classes=2)
    assert cost.parameters == 6_948_098
    assert cost.macs / 1e9 == pytest.approx(43.5, rel=0.001)  # by hooks that count


@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name != "densenet_tiny"])
def test_depth_is_what_the_name_says(name: str) -> None:
    of = specs.JobSpec(network=name).shape
    # Stem, classifier, transitions, and the convolutions of the layers.
    depth = sum(of.blocks) * (2 if of.bottleneck else 1) + (len(of.blocks) - 1) + 2
    if name == "densenet264_imagenet":
        depth -= 1  # table 1 gives these very blocks: the name is the paper's own slip
    assert str(depth) in re.findall(r"[0-9]+", name)


def test_networks_set_fields_of_the_shape_only() -> None:
    for fields in networks.NETWORKS.values():
        assert set(fields) <= set(networks.FIELDS)


#: The names of spec version 1: a key submitted in its days still finds its job, so their settings never grow.
FIRST = ("densenet121", "densenet161", "densenet169", "densenet201", "densenet_bc_100_12", "densenet_bc_40_12")


@pytest.mark.parametrize("name", [*FIRST, "densenet_tiny"])
def test_names_of_the_first_version_set_its_fields_alone(name: str) -> None:
    assert set(networks.NETWORKS[name]) == {"growth_rate", "blocks"}


@pytest.mark.parametrize(
    ("blocks", "reduction", "kept"),
    [
        ((1, 1), 0.34, True),  # 3 channels leave 1
        ((1, 1), 0.33, False),
        ((1,), 0.1, True),  # no transition, nothing to lose
        ((8, 1, 1), 0.2, False),  # 10 leave 2, and these with one more leave none
    ],
)
def test_a_transition_leaves_a_channel_or_the_job_is_refused(
    blocks: tuple[int, ...], reduction: float, *, kept: bool
) -> None:
    given = {"blocks": blocks, "growth_rate": 1, "reduction": reduction}
    assert networks.keeps_channels(shape(**given)) is kept
    with contextlib.nullcontext() if kept else pytest.raises(errors.InvalidSpec, match="leaves no channel"):
        specs.parse(given)


def test_each_end_for_want_of_memory_leads_to_the_next_leaner_mode() -> None:
    assert [networks.leaner("plain", times=times) for times in range(4)] == ["plain", "balanced", "lean", "lean"]
    assert networks.leaner("balanced", times=1) == networks.leaner("lean", times=9) == "lean"
