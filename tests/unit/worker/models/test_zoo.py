from typing import Any, get_args

import pytest
import torch
from torch import nn

from orchestrator import errors
from orchestrator.core import networks, specfields, specs, states
from worker.models import densenet, zoo
from worker.training import parts

#: Numbers that cover every branch of the formula; the large networks have the same branches.
SHAPES: list[dict[str, Any]] = [
    *({"network": name} for name in ("densenet121", "densenet121_imagenet", "densenet_40_12", "densenet_bc_40_12")),
    {"network": "densenet_tiny"},
    {"blocks": (2, 3, 1), "growth_rate": 5, "reduction": 0.7, "stem": "imagenet", "bottleneck": 3},
    {"blocks": (2, 3), "growth_rate": 5, "stem_channels": 7, "bottleneck": 0, "dropout": 0.2, "transition_relu": True},
    {"blocks": (3,), "growth_rate": 3, "reduction": 0.1, "stem_channels": 9, "stem": "imagenet"},
]


@pytest.mark.parametrize("fields", SHAPES)
@pytest.mark.parametrize("size", [32, 45])
def test_the_built_network_costs_what_the_formula_says(fields: dict[str, Any], size: int) -> None:
    spec = specs.JobSpec(**fields)
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        network = zoo.build(spec, 3).eval()
        macs = counted(network, torch.empty(1, 3, size, size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert networks.cost(spec.shape, image_size=size, classes=3) == networks.Cost(parameters=parameters, macs=macs)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_name_builds_a_network_with_the_formulas_parameters(name: str) -> None:
    spec = specs.JobSpec(network=name)
    with torch.device("meta"):
        network = zoo.build(spec, 3)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert networks.cost(spec.shape, image_size=224, classes=3).parameters == parameters
    assert network.linear.out_features == 3


@pytest.mark.parametrize("part", get_args(specfields.Part))
@pytest.mark.parametrize("name", ["densenet121_imagenet", "densenet_40_12", "densenet_tiny"])
def test_as_many_parameters_learn_as_are_reckoned(name: str, part: specfields.Part) -> None:
    spec = specs.JobSpec(network=name)
    with torch.device("meta"):
        learning = parts.let_learn(zoo.build(spec, 3), part)
    assert networks.learning(spec.shape, part, classes=3) == sum(each.numel() for each in learning)


def counted(network: nn.Module, image: torch.Tensor) -> int:
    """Return the multiply-adds of every convolution and the classifier, by what comes out of each."""
    macs = []

    def count(module: Any, _inputs: Any, output: torch.Tensor) -> None:
        macs.append(output[0].numel() * module.weight[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(image)
    return sum(macs)


def test_the_notebooks_spec_builds_the_networks_own_densenet121() -> None:
    built, named = zoo.build(specs.JobSpec(), 2).state_dict(), densenet.densenet121(num_classes=2).state_dict()
    assert {name: value.shape for name, value in built.items()} == {name: value.shape for name, value in named.items()}


def test_fields_of_the_spec_override_the_name() -> None:
    spec = specs.JobSpec(network="densenet_tiny", growth_rate=6, blocks=(2,), reduction=0.25, stem="imagenet")
    network = zoo.build(spec, 2)
    wanted = densenet.DenseNet(growth_rate=6, blocks=(2,), num_classes=2, reduction=0.25, stem="imagenet")
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in wanted.state_dict().items()
    }


def test_a_network_that_cannot_be_is_the_users_error() -> None:
    unchecked = specs.JobSpec(network="densenet_tiny").model_copy(update={"reduction": 0.01})
    with pytest.raises(errors.StageFailed, match="cannot be built") as failed:
        zoo.build(unchecked, 2)
    assert failed.value.reason == states.Reason.USER_ERROR
