from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import networks, specs
from tests.unit.worker.models import notebook
from worker.models import densenet


def pair(**numbers: Any) -> tuple[notebook.DenseNet, densenet.DenseNet]:
    """Return the notebook's network and ours, from one seed, with five classes."""
    torch.manual_seed(7)
    theirs = notebook.DenseNet(numbers["blocks"], numbers["growth_rate"], numbers.get("reduction", 0.5), num_class=5)
    torch.manual_seed(7)
    return theirs, densenet.DenseNet(num_classes=5, **numbers)


def test_densenet121_with_two_classes_has_the_notebooks_parameters() -> None:
    network = densenet.densenet121(num_classes=2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_948_098


def test_names_shapes_and_order_are_the_notebooks() -> None:
    theirs, ours = pair(blocks=(6, 12, 24, 16), growth_rate=32)
    assert [(name, value.shape) for name, value in ours.state_dict().items()] == [
        (name, value.shape) for name, value in theirs.state_dict().items()
    ]
    assert "features.dense_block_layer_0.bottle_neck_layer_0.bottle_neck.0.weight" in ours.state_dict()
    assert "features.dense_block3.bottle_neck_layer_15.bottle_neck.5.weight" in ours.state_dict()


numbers = st.fixed_dictionaries(
    {
        "growth_rate": st.integers(1, 6),
        "blocks": st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
        "reduction": st.floats(0.5, 1.0),
    }
)


@given(numbers=numbers)
@settings(max_examples=30)
def test_one_seed_gives_the_notebooks_weights_and_logits_to_the_last_bit(numbers: dict[str, Any]) -> None:
    theirs, ours = pair(**numbers)
    for (_, their_value), our_value in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.equal(their_value, our_value)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(theirs(images), ours(images))
    assert torch.equal(theirs.eval()(images), ours.eval()(images))  # the running statistics moved alike


def test_the_notebooks_weights_load_strictly() -> None:
    theirs, _ = pair(blocks=(2, 2), growth_rate=4)
    torch.manual_seed(99)
    ours = densenet.DenseNet(blocks=(2, 2), growth_rate=4, num_classes=5)
    images = torch.randn(3, 3, 8, 8)
    assert not torch.equal(theirs(images), ours(images))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(theirs(images), ours(images))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_smallest_image_of_a_stem_is_the_smallest_that_runs(stem: networks.Stem) -> None:
    blocks = (1, 1, 1, 1)
    network = densenet.DenseNet(growth_rate=2, blocks=blocks, num_classes=2, stem=stem)
    side = networks.smallest_image(specs.JobSpec(growth_rate=2, blocks=blocks, stem=stem).shape)
    assert network(torch.randn(2, 3, side, side)).shape == (2, 2)
    with pytest.raises(RuntimeError, match="too small"):
        network(torch.randn(2, 3, side - 1, side - 1))


def test_imagenet_stem_quarters_the_side_before_the_first_block() -> None:
    network = densenet.DenseNet(growth_rate=2, blocks=(1, 1), num_classes=2, stem="imagenet")
    assert network.stem(network.conv1(torch.randn(2, 3, 64, 64))).shape == (2, 4, 16, 16)


def test_layers_without_bottleneck_have_one_convolution() -> None:
    layer = densenet.DenseLayer(6, 4, bottleneck=0)
    assert [type(module).__name__ for module in layer.bottle_neck] == ["BatchNorm2d", "ReLU", "Conv2d"]
    assert layer(torch.randn(2, 6, 5, 5)).shape == (2, 10, 5, 5)


def test_relu_in_transitions_is_the_one_difference_that_it_makes() -> None:
    transitions = []
    for relu in (False, True):
        torch.manual_seed(5)
        transitions.append(densenet.Transition(12, 6, relu=relu).down_sample)
    plain, rectified = transitions
    x = torch.randn(2, 12, 4, 4)
    assert torch.equal(plain[0](x).relu(), rectified[:2](x))
    assert torch.equal(plain[1:](x), rectified[2:](x))


def test_dropout_drops_its_share_in_training_alone() -> None:
    torch.manual_seed(5)
    layer = densenet.DenseLayer(8, 64, dropout=0.25)
    x = torch.randn(4, 8, 8, 8)
    dropped = (layer(x)[:, 8:] == 0).float().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.01)
    assert (layer.eval()(x)[:, 8:] != 0).all()


def test_weights_fit_with_dropout_and_without() -> None:
    numbers_: dict[str, Any] = {"growth_rate": 4, "blocks": (2, 1), "num_classes": 2, "transition_relu": True}
    torch.manual_seed(5)
    with_it = densenet.DenseNet(**numbers_, dropout=0.5).eval()
    without = densenet.DenseNet(**numbers_).eval()
    without.load_state_dict(with_it.state_dict(), strict=True)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(without(images), with_it(images))
