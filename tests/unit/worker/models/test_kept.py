import pytest
import torch

from benchmarks import saved
from orchestrator.core import memory, networks, specs
from worker.models import zoo
from worker.training import kernels

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mode", ["plain", "balanced", "lean"])
@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [("densenet_bc_40_12", "cifar", 8), ("densenet_40_12", "cifar", 8), ("densenet_bc_40_12", "imagenet", 32)],
)
def test_the_formula_counts_what_the_network_keeps(
    name: str, stem: networks.Stem, size: int, mode: networks.Memory, precision: kernels.Precision
) -> None:
    spec = specs.JobSpec(network=name, stem=stem, memory=mode, image_size=size)
    network = zoo.build(spec, 3)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with kernels.Kernels(precision=precision).autocast(CPU):
            logits: torch.Tensor = network(images)
        return logits

    counted = saved.saved_bytes(forward, torch.randn(2, 3, size, size))
    known = memory.kept(spec.shape, image_size=size, mode=mode, precision=precision)
    assert known == pytest.approx(counted / 2, rel=1e-2)
