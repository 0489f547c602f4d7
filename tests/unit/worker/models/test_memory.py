"""The leaner modes keep less for backward, and change no loss, no gradient and no statistic."""

import copy
from typing import Any

import pytest
import torch

from benchmarks import saved
from orchestrator.core import networks
from worker.models import densenet

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


def test_the_notebooks_network_keeps_at_most_46_and_17_percent() -> None:
    with torch.device("meta"):
        network, images = densenet.densenet121(num_classes=2), torch.empty(4, 3, 224, 224)
    plain = saved.saved_bytes(network, images)
    assert 1.8e9 < plain / len(images) < 2.0e9
    shares: dict[networks.Memory, float] = {"balanced": 0.46, "lean": 0.17}
    for mode, share in shares.items():
        network.use_memory(mode)
        assert saved.saved_bytes(network, images) <= share * plain


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
