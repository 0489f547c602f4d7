"""P6, P7: what `--memory balanced` and `lean` keep for backward, and what a step takes with them, against `plain`.

python -m benchmarks.memory [--quick] [--write]
"""

import functools
from typing import get_args

import torch

from benchmarks import measure, saved, training
from orchestrator.core import networks
from worker.models import densenet

#: Shares of the plain mode to reach: bytes, and seconds of a step.
REACH: dict[networks.Memory, tuple[float, float]] = {"balanced": (0.46, 1.25), "lean": (0.17, 1.40)}

SIZE, BATCH = 64, 16


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Count the bytes for the notebook's network at 224 pixels, measure steps at 64."""
    return [*kept(), *steps(quick=quick)]


def kept() -> list[measure.Figure]:
    """Count what backward keeps of one picture, with either stem."""
    return [figure for stem in get_args(networks.Stem) for figure in _kept(stem)]


def _kept(stem: networks.Stem) -> list[measure.Figure]:
    with torch.device("meta"):
        network, images = densenet.densenet121(num_classes=2, stem=stem), torch.empty(1, 3, 224, 224)
    plain = saved.saved_bytes(network, images)
    found = []
    for mode, (reach, _) in REACH.items():
        network.use_memory(mode)
        ours = saved.saved_bytes(network, images)
        what = f"kept for backward by `--memory {mode}`, stem {stem}, a picture of 224 px"
        found.append(
            measure.Figure(
                id="P6", what=what, peer="plain", ours=(ours,), theirs=(plain,), reach=reach, shown=measure.mebibytes
            )
        )
    return found


def steps(*, quick: bool) -> list[measure.Figure]:
    """Measure a step in each mode, in turns."""
    size, batch = (training.QUICK_SIZE, training.QUICK_BATCH) if quick else (SIZE, BATCH)
    options = ("--size", str(size), "--batch", str(batch))
    plain, *leaner = measure.in_turns(
        *(
            functools.partial(training.step, "orch", *options, "--memory", mode, ours=True)
            for mode in ("plain", *REACH)
        ),
        pairs=training.QUICK_PAIRS if quick else measure.PAIRS,
    )
    return [
        measure.Figure(
            id="P7",
            what=f"a step with `--memory {mode}`, {size} px, batch {batch}",
            peer="plain",
            ours=ours,
            theirs=plain,
            reach=reach,
        )
        for (mode, (_, reach)), ours in zip(REACH.items(), leaner, strict=True)
    ]


if __name__ == "__main__":
    measure.command("benchmarks.memory", figures)
