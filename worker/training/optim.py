"""From a job spec to its optimizer.

Adam: https://arxiv.org/abs/1412.6980. AdamW: https://arxiv.org/abs/1711.05101. SGD with (Nesterov) momentum:
https://proceedings.mlr.press/v28/sutskever13.html.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from orchestrator.core import specs

#: PyTorch's multi-tensor form: the same bits as its loop over the parameters, and faster (on two CPU cores a step of
#: SGD took half the time). The fused form differs in the last bits, so it is no choice there. On a GPU it is the one
#: that does not wait to see whether fp16's gradients are finite. Each checkpoint records it.
_FORM: dict[str, Any] = {"foreach": True}
_FORM_ON_GPU: dict[str, Any] = {"fused": True}


def build(
    spec: specs.JobSpec, parameters: Iterable[nn.Parameter], *, like: Sequence[Mapping[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Return the spec's optimizer, with PyTorch's other defaults; in the form of `like`, a checkpoint's groups."""
    parameters = list(parameters)
    groups = _groups(spec, parameters)
    # Whether it takes part in the scaling of fp16 goes by the form that it is made in, whatever groups are loaded.
    form = _FORM_ON_GPU if (like[0].get("fused") if like else _on_gpu(parameters)) else _FORM
    if spec.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, **form)
        begin(sgd)
        return sgd
    kind = torch.optim.AdamW if spec.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=spec.lr, **form)


def begin(optimizer: torch.optim.Optimizer) -> None:
    """Let the momentum of fused SGD be nothing before its first step, in which it is what the gradients are then.

    Else torch makes its memory in the first step and fills it there: where that one is left out, since its gradients
    overflow in fp16, it stays whatever lay in the memory, and the next step goes along it.
    """
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD) and group["fused"] and group["momentum"]:
            for each in group["params"]:
                optimizer.state[each].setdefault("momentum_buffer", torch.zeros_like(each))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step have this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _on_gpu(parameters: list[nn.Parameter]) -> bool:
    return any(each.is_cuda for each in parameters)


def _groups(spec: specs.JobSpec, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Return the parameters in groups of one weight decay: BatchNorm's and the biases, all of one dimension, have none.

    Goyal et al., https://arxiv.org/abs/1706.02677, section 5.3; the paper of DenseNet decays them all.
    """
    if spec.weight_decay == 0 or spec.decay_norm:
        return [{"params": parameters, "weight_decay": spec.weight_decay}]
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
