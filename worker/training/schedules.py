"""The learning rate of every step: pure functions of the step and their number, so that resuming needs no state."""

import math
from collections.abc import Callable

from orchestrator.core import specs

#: One-cycle: share of the steps in which the rate rises, how far below the peak it begins, and it ends below that.
_RISE = 0.3
_BEGIN = 25.0
_END = 1e4


def rate(spec: specs.JobSpec, *, step: int, total: int) -> float:
    """Return the learning rate of `step` (from 0) of `total`.

    While the head learns alone it has a rate of its own, and everything else is about the steps behind that. A warm-up
    rises linearly (Goyal et al., https://arxiv.org/abs/1706.02677, section 2.2) to `lr`, which its last step has; what
    follows has its course over the steps that remain.
    """
    alone = round(spec.head_epochs / spec.epochs * total)
    if step < alone:
        return spec.lr if spec.head_lr is None else spec.head_lr
    step, total = step - alone, total - alone
    warmup = round(spec.warmup_epochs / (spec.epochs - spec.head_epochs) * total)
    if step < warmup:
        return spec.lr * (step + 1) / warmup
    return _COURSES[spec.schedule](spec, step, warmup, total)


def _constant(spec: specs.JobSpec, _step: int, _warmup: int, _total: int) -> float:
    return spec.lr


def _step(spec: specs.JobSpec, step: int, _warmup: int, total: int) -> float:
    """He et al., https://arxiv.org/abs/1512.03385, section 3.4; the shares are of the whole training."""
    return spec.lr * spec.lr_gamma ** sum(step >= round(share * total) for share in spec.lr_steps)


def _cosine(spec: specs.JobSpec, step: int, warmup: int, total: int) -> float:
    """Loshchilov, Hutter, https://arxiv.org/abs/1608.03983, equation 5, without restarts."""
    return _between(spec.lr, spec.lr_end, (step - warmup) / (total - warmup))


def _one_cycle(spec: specs.JobSpec, step: int, warmup: int, total: int) -> float:
    """Smith, Topin, https://arxiv.org/abs/1708.07120, with two half cosines, as PyTorch's OneCycleLR has it."""
    begin = spec.lr / _BEGIN
    done, last = step - warmup, max(1, total - warmup - 1)
    peak = max(0.0, _RISE * (total - warmup) - 1)
    if done <= peak and peak > 0:
        return _between(begin, spec.lr, done / peak)
    return _between(spec.lr, begin / _END, (done - peak) / (last - peak))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


_COURSES: dict[str, Callable[[specs.JobSpec, int, int, int], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
}
