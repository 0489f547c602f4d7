import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import saved
from orchestrator import environ
from orchestrator.core import memory, networks, specs
from worker.models import fused, shared, zoo
from worker.training import kernels

CPU = torch.device("cpu")
#: A network of each kind of layer and stem, in small.
NETWORKS: list[dict[str, Any]] = [
    {"network": "densenet_bc_40_12", "image_size": 8},
    {"network": "densenet_40_12", "image_size": 8},
    {"network": "densenet_bc_40_12", "image_size": 32, "stem": "imagenet"},
    {"network": "densenet_bc_40_12", "image_size": 8, "dropout": 0.2},
    {"network": "densenet_40_12", "image_size": 8, "dropout": 0.2},
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mode", ["plain", "balanced", "lean"])
@pytest.mark.parametrize("fields", NETWORKS, ids=str)
def test_the_formula_counts_what_the_network_keeps(
    fields: dict[str, Any], mode: networks.Memory, precision: kernels.Precision
) -> None:
    spec = specs.JobSpec(**fields, memory=mode)
    network = zoo.build(spec, 3)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with kernels.Kernels(precision=precision).autocast(CPU):
            logits: torch.Tensor = network(images)
        return logits

    counted = saved.saved_bytes(forward, torch.randn(2, 3, spec.image_size, spec.image_size))
    known = memory.kept(spec.shape, image_size=spec.image_size, mode=mode, precision=precision)
    assert known == pytest.approx(counted / 2, rel=1e-2)


@pytest.mark.skipif(shutil.which(environ.compiler()[0]) is None, reason="no C++ compiler")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fields", NETWORKS, ids=str)
def test_the_formula_counts_what_the_compiled_pass_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], precision: kernels.Precision
) -> None:
    spec = specs.JobSpec(**fields, compile=True)
    compiled = shared.Pass(zoo.build(spec, 3), fused.built(tmp_path))
    buffers: list[int] = []
    begin = shared._Buffer.__init__

    def counted(self: Any, *given: Any) -> None:
        begin(self, *given)
        buffers.append(self.rows.nbytes)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with kernels.Kernels(precision=precision).autocast(CPU):
            return compiled(images)

    monkeypatch.setattr(shared._Buffer, "__init__", counted)
    kept = saved.saved_bytes(forward, torch.randn(2, 3, spec.image_size, spec.image_size)) + sum(buffers)
    known = memory.kept(spec.shape, image_size=spec.image_size, mode="plain", precision=precision, compiled=True)
    assert known == pytest.approx(kept / 2, rel=1e-2)
