import pytest

from orchestrator import errors
from orchestrator.core import networks, specs, states
from worker.models import densenet, zoo

#: Convolutions and the classifier: what the number in a network's name counts (paper, tables 1 and 2).
DEPTHS = {
    "densenet121": 121,
    "densenet161": 161,
    "densenet169": 169,
    "densenet201": 201,
    "densenet_bc_100_12": 100,
    "densenet_bc_40_12": 40,
    "densenet_tiny": 7,
}


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_name_builds_a_network_of_its_depth(name: str) -> None:
    network = zoo.build(specs.JobSpec(network=name), 3)
    layers = [value for key, value in network.state_dict().items() if key.endswith("weight") and value.dim() > 1]
    assert len(layers) == DEPTHS[name]
    assert network.linear.out_features == 3


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
