"""Pictures and labels mixed in pairs: mixup (https://arxiv.org/abs/1710.09412), CutMix (https://arxiv.org/abs/1905.04899)."""

import torch
from torchvision.transforms import v2

from orchestrator.core import specs
from worker.data import augment


class Mixer:
    """Mixes the pictures of a step; with both kinds on, a step has one of them, each as likely.

    Which it is, the share and the place depend on (seed, step) alone.
    """

    def __init__(self, spec: specs.JobSpec, classes: int) -> None:
        kinds = ((v2.MixUp, spec.mixup), (v2.CutMix, spec.cutmix))
        self._seed = spec.seed
        self._kinds = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha > 0]

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, *, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mixed pictures and each one's share of every class (N, classes); both unchanged with none on."""
        if not self._kinds:
            return images, targets
        with augment.seeded(self._seed, "mix", step):
            kind = self._kinds[int(torch.randint(len(self._kinds), ()))]
            mixed: tuple[torch.Tensor, torch.Tensor] = kind(images, targets)
        return mixed
