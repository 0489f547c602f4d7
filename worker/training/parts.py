"""Which part of a network learns: all of it, its last dense block and what follows, or the classifier alone."""

from torch import nn

from orchestrator.core import specfields
from worker.models import densenet


def let_learn(network: densenet.DenseNet, part: specfields.Part) -> list[nn.Parameter]:
    """Let this part of the network learn and nothing else; return its parameters, in the network's order."""
    network.requires_grad_(part == "all")
    for module in _learning(network, part):
        module.requires_grad_(True)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def set_training(network: densenet.DenseNet, part: specfields.Part) -> None:
    """Put what learns into training mode and the rest into evaluation: frozen weights go with frozen statistics."""
    network.train(part == "all")
    for module in _learning(network, part):
        module.train()


def _learning(network: densenet.DenseNet, part: specfields.Part) -> list[nn.Module]:
    if part == "all":
        return [network]
    if part == "head":
        return [network.linear]
    last = max(number for number, (name, _) in enumerate(network.features.named_children()) if "block" in name)
    return [*network.features[last:], network.linear]
