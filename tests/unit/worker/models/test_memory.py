"""The leaner modes keep less for backward, and change no loss, no gradient and no statistic."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import saved
from orchestrator.core import networks
from worker.models import densenet, recompute
from worker.training import parts

LEAN: list[networks.Memory] = ["balanced", "lean"]

#: A network of each kind of layer: with bottlenecks, without, with dropout.
KINDS: list[dict[str, Any]] = [
    {"growth_rate": 8, "blocks": (3, 2)},
    {"growth_rate": 8, "blocks": (3, 2), "bottleneck": 0, "reduction": 1.0},
    {"growth_rate": 8, "blocks": (3, 2), "dropout": 0.3, "stem": "imagenet", "transition_relu": True},
]


def trained(network: densenet.DenseNet, mode: networks.Memory, *, steps: int = 2) -> dict[str, torch.Tensor]:
    """Return logits, gradients and statistics after two passes in this mode."""
    one = copy.deepcopy(network)
    one.use_memory(mode)
    source = torch.Generator().manual_seed(1)
    torch.manual_seed(5)  # of dropout
    for _ in range(steps):
        logits = one(torch.randn(4, 3, 16, 16, generator=source))
        logits.square().sum().backward()
    gradients = {name: value.grad for name, value in one.named_parameters() if value.grad is not None}
    assert len(gradients) == len(list(one.parameters()))
    return gradients | dict(one.named_buffers()) | {"logits": logits.detach()}


@pytest.mark.parametrize("mode", LEAN)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_and_statistics_are_those_of_the_plain_network_to_the_last_bit(
    kind: dict[str, Any], mode: networks.Memory
) -> None:
    torch.manual_seed(0)
    network = densenet.DenseNet(num_classes=3, **kind)
    plain, lean = trained(network, "plain"), trained(network, mode)
    assert [name for name, value in plain.items() if not torch.equal(value, lean[name])] == []
    counters = {int(value) for name, value in lean.items() if name.endswith("num_batches_tracked")}
    assert counters == {2}


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_densenet121_keeps_at_most_34_and_6_percent(stem: networks.Stem) -> None:
    with torch.device("meta"):
        network, images = densenet.densenet121(num_classes=2, stem=stem), torch.empty(4, 3, 224, 224)
    plain = saved.saved_bytes(network, images)
    if stem == "cifar":
        assert 1.8e9 < plain / len(images) < 2.0e9
    shares: dict[networks.Memory, float] = {"balanced": 0.34, "lean": 0.06}
    for mode, share in shares.items():
        network.use_memory(mode)
        assert saved.saved_bytes(network, images) <= share * plain


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_that_keeps_nothing_is_pytorchs_to_the_last_bit(side: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, side, side).to(memory_format=layout).requires_grad_()
    theirs, ours = nn.functional.avg_pool2d(maps, 2, 2), recompute.halved(maps)
    weights = torch.randn_like(theirs)
    gradients = [torch.autograd.grad((made * weights).sum(), maps)[0] for made in (theirs, ours)]
    assert torch.equal(theirs, ours)
    assert torch.equal(*gradients)


def test_frozen_parts_keep_their_statistics() -> None:
    torch.manual_seed(0)
    network = densenet.DenseNet(num_classes=3, growth_rate=4, blocks=(2, 2), stem="imagenet")
    learning = parts.let_learn(network, "last-block")
    before = copy.deepcopy(network.state_dict())
    for mode in ("plain", *LEAN):
        network.load_state_dict(before)
        network.use_memory(mode)
        parts.set_training(network, "last-block")
        made = network(torch.ones(2, 3, 32, 32).cumsum(dim=2))
        gradients = torch.autograd.grad(made.square().sum(), learning)
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert changed
        assert all(name.startswith(("features.dense_block1", "features.bn")) for name in changed)
        if mode == "plain":
            plain = gradients
        assert all(map(torch.equal, plain, gradients))


def test_without_gradients_and_in_evaluation_nothing_is_done_twice() -> None:
    torch.manual_seed(0)
    network = densenet.DenseNet(num_classes=3, growth_rate=4, blocks=(2, 2))
    network.use_memory("lean")
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        network(images)
    assert {int(value) for name, value in network.named_buffers() if name.endswith("tracked")} == {1}
    before = copy.deepcopy(network.state_dict())
    network.eval()
    network(images).sum().backward()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
