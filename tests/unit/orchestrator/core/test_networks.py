import contextlib

import pytest

from orchestrator import errors
from orchestrator.core import networks, specs


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
    assert networks.smallest_image(blocks=blocks, stem=stem) == least


@pytest.mark.parametrize(
    ("name", "layers"),
    # The depth in a name counts stem, classifier, transitions, and two convolutions a layer.
    [
        ("densenet121", 121),
        ("densenet161", 161),
        ("densenet169", 169),
        ("densenet201", 201),
        ("densenet_bc_100_12", 100),
    ],
)
def test_depth_is_what_the_name_says(name: str, layers: int) -> None:
    blocks = networks.NETWORKS[name]["blocks"]
    assert isinstance(blocks, tuple)
    assert 2 * sum(blocks) + (len(blocks) - 1) + 2 == layers


def test_networks_set_fields_of_the_spec_only() -> None:
    for fields in networks.NETWORKS.values():
        assert set(fields) <= set(specs.JobSpec.model_fields)


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
    assert networks.keeps_channels(blocks=blocks, growth_rate=1, reduction=reduction) is kept
    given = {"blocks": blocks, "growth_rate": 1, "reduction": reduction}
    with contextlib.nullcontext() if kept else pytest.raises(errors.InvalidSpec, match="leaves no channel"):
        specs.parse(given)
