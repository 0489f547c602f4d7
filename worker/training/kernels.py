"""What a step is computed with: how pictures lie in memory, and in which numbers. Fixed at a job's first step.

Each checkpoint keeps it, and who goes on from one obeys: another layout or precision gives other last bits. Mixed
precision: Micikevicius et al., https://arxiv.org/abs/1710.03740; weights, losses, BatchNorm statistics and all that is
measured stay in fp32. On a GPU none of this has been run.
"""

import copy
import operator
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from orchestrator.core import specs
from worker import picks
from worker.models import densenet

Layout = Literal["contiguous", "channels_last"]
Precision = Literal["fp32", "bf16", "fp16"]

_FORMATS: dict[Layout, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
_TYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

#: Devices whose compiled pass is by kernels of orch's own (`worker.models.shared`), which read channels_last.
OWN = frozenset({"cpu"})

#: Steps in each layout that `auto` measures, in turns, behind one that does not count.
_MEASURED_STEPS = 2


class Kernels(BaseModel):
    """The choice. Its defaults are what every job had before there was one."""

    model_config = ConfigDict(frozen=True)

    layout: Layout = "contiguous"
    precision: Precision = "fp32"
    #: Whether the training pass is that of `compiling`; left out where it is not, as by earlier versions.
    compiled: bool = Field(default=False, exclude_if=operator.not_)
    #: The machine code of orch's own kernels, where it is by them; another compiler or orch makes another.
    code: str = Field(default="", exclude_if=operator.not_)

    @property
    def memory_format(self) -> torch.memory_format:
        """PyTorch's word for the layout."""
        return _FORMATS[self.layout]

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which a forward pass is computed in mixed precision, where it is."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, dtype=_TYPES[self.precision])

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return what keeps the gradients of fp16 from vanishing; for other numbers it does nothing."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")


DEFAULT = Kernels()


def choose(
    spec: specs.JobSpec,
    network: densenet.DenseNet,
    device: torch.device,
    *,
    look: Callable[[], None],
    pick: picks.Pick | None = None,
) -> tuple[Kernels, str | None]:
    """Return what the spec asks for, and how `auto` was decided; `look` is called between the steps it measures.

    A `pick` is what this host remembers of the layout, and then nothing is measured.
    """
    precision: Precision = fast_precision(device) if spec.precision == "auto" else spec.precision
    said = [f"precision {precision}, which this device is fast at"] if spec.precision == "auto" else []
    if spec.layout != "auto":
        return Kernels(layout=spec.layout, precision=precision), "; ".join(said) or None
    if spec.compile and network.memory == "plain" and device.type in OWN:
        known = "layout channels_last, in which the compiled pass computes"
        return Kernels(layout="channels_last", precision=precision), "; ".join([*said, known])
    recalled = pick.recall() if pick is not None else None
    for layout in _FORMATS:
        if layout == recalled:
            known = f"layout {layout}, as was measured on this host before"
            return Kernels(layout=layout, precision=precision), "; ".join([*said, known])
    images = torch.zeros(spec.batch_size // spec.gpus, 3, spec.image_size, spec.image_size, device=device)
    sides = [Kernels(layout=layout, precision=precision) for layout in _FORMATS]
    seconds = _measured(sides, network, images, look)
    fastest = min(sides, key=lambda side: seconds[side])
    if pick is not None:
        pick.keep(fastest.layout)
    took = ", ".join(f"{side.layout} {seconds[side]:.3g} s a pass" for side in sides)
    return fastest, "; ".join([*said, f"layout {fastest.layout}: {took}"])


def fast_precision(device: torch.device) -> Precision:
    """Return the numbers that a device has circuits for; a CPU without them falls out of oneDNN, 40 times slower."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 - no other word
    return "bf16" if has_bf16 else "fp32"


def set_up_gpu() -> None:
    """Let a GPU try its convolutions once for each shape, and compute fp32 as IEEE has it, not in TF32."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def gpu_switches(device: torch.device) -> dict[str, bool]:
    """Return what of these is on for a device, by torch's own word; on a CPU they mean nothing."""
    cudnn, on_gpu = torch.backends.cudnn, device.type == "cuda"
    tf32 = cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return {"tf32": on_gpu and tf32, "cudnn_benchmark": on_gpu and cudnn.benchmark}


def _measured(
    sides: list[Kernels], network: densenet.DenseNet, images: torch.Tensor, look: Callable[[], None]
) -> dict[Kernels, float]:
    """Return the median seconds of a forward and backward pass of copies of the network."""
    copies = {side: copy.deepcopy(network).to(memory_format=side.memory_format).train() for side in sides}
    taken: dict[Kernels, list[float]] = {side: [] for side in sides}
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):  # dropout draws
        for _ in range(1 + _MEASURED_STEPS):
            for side, one in copies.items():
                look()
                taken[side].append(_pass(side, one, images))
    return {side: statistics.median(times[1:]) for side, times in taken.items()}


def _pass(side: Kernels, network: nn.Module, images: torch.Tensor) -> float:
    start = time.perf_counter()
    with side.autocast(images.device):
        logits = network(images.contiguous(memory_format=side.memory_format))
    logits.float().sum().backward()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
