import pytest
import torch

from benchmarks import saved
from orchestrator.core import memory, networks, specs
from worker.models import zoo


@pytest.mark.parametrize("mode", ["plain", "balanced", "lean"])
@pytest.mark.parametrize("name", ["densenet_bc_40_12", "densenet_40_12", "densenet121_imagenet"])
def test_the_formula_counts_what_the_network_keeps(name: str, mode: networks.Memory) -> None:
    spec = specs.JobSpec(network=name, memory=mode, image_size=64)
    with torch.device("meta"):
        network, images = zoo.build(spec, 3), torch.empty(2, 3, 64, 64)
    counted = saved.saved_bytes(network, images)
    assert memory.kept(spec.shape, image_size=64, mode=mode) == pytest.approx(counted / 2, rel=1e-2)
