"""One pass over pictures without learning: sums and confusion matrix.

`python -m worker.training.evaluate` measures a checkpoint on any data set, apart from the job's own evaluation.
"""

import functools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from orchestrator import config, errors
from orchestrator.core import jobs
from worker import answers, protocol
from worker.data import loader, supply
from worker.training import asked, checkpoint, metrics, world


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a network does on a split."""

    sums: metrics.Sums
    confusion: metrics.Confusion


@torch.inference_mode()
def measure(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    num_classes: int,
    device: torch.device,
    ranks: world.World = world.ALONE,
    turn: int = 0,
) -> Measured:
    """Measure `model` on batches of (images (N, 3, H, W), targets (N,)); leaves it in evaluation mode.

    Of several ranks each brings the batches that it was dealt in this `turn`, and has the sums over all. On a GPU
    nothing waits for a batch: losses stay on the device until the end. A loss that is not finite is measured as such:
    what it means, the caller knows.
    """
    started = time.monotonic()
    model.eval()
    losses: list[torch.Tensor] = []
    sizes: list[int] = []
    cells = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    for images, targets in batches:
        truth = targets.to(device, non_blocking=True)
        logits = model(images.to(device, non_blocking=True))
        losses.append(functional.cross_entropy(logits, truth))
        sizes.append(len(targets))
        cells.index_add_(0, truth * num_classes + logits.max(dim=1).indices, torch.ones_like(truth))
    confusion = ranks.total(cells.view(num_classes, num_classes).cpu()).numpy()
    pairs = list(zip(torch.stack(losses).tolist() if losses else [], sizes, strict=True))
    if ranks.share.ranks > 1:
        pairs = [(loss, int(size)) for loss, size in ranks.dealt(pairs, columns=2, turn=turn)]
    sums = metrics.Sums(correct=int(confusion.trace()), images=sum(size for _, size in pairs))
    for loss, size in pairs:
        sums.loss += loss * size
    sums.seconds = time.monotonic() - started
    return Measured(sums=sums, confusion=confusion)


def report(measured: Measured, *, step: int, sha256: str, classes: tuple[str, ...]) -> protocol.Evaluated:
    """Return the result as it is told, of the checkpoint of that step and digest."""
    return protocol.Evaluated(
        checkpoint_step=step,
        checkpoint_sha256=sha256,
        loss=measured.sums.mean_loss,
        accuracy=measured.sums.accuracy,
        images=measured.sums.images,
        classes=classes,
        precision=metrics.precision(measured.confusion),
        recall=metrics.recall(measured.confusion),
        confusion=measured.confusion.tolist(),
        seconds=measured.sums.seconds,
    )


class Request(asked.Request):
    """Which checkpoint, and on which split of which data set; `data` as in a job.

    `data_hash` is the content that it must have: that of the job's own.
    """

    data: str
    data_sha256: str | None = None
    data_hash: str | None = None
    split: jobs.Split
    threads: int


def main() -> int:
    """Answer the request on standard input."""
    return asked.serve(Request, elsewhere)


def elsewhere(request: Request, saved: checkpoint.Checkpoint, say: answers.Say) -> None:
    """Fetch the data set where it is not here, and measure the checkpoint on it; classes are found by their names.

    Raises:
        OrchError: the data set cannot be had, is another by now, has other classes, or the loss on it is not finite.

    """
    torch.set_num_threads(request.threads)
    spec = request.spec.model_copy(update={"data": request.data, "data_sha256": request.data_sha256})
    tell = functools.partial(_tell, say)
    with supply.using(spec, expected_hash=request.data_hash, settings=config.load(), report=tell) as data:
        label = torch.tensor(_labels(request.classes, data.classes))
        batches = loader.Loader(data, spec)
        total = data.counts[request.split]

        def mapped() -> Iterator[loader.Batch]:
            done = 0
            for images, targets in batches.validation() if request.split == "val" else batches.unaugmented():
                yield images, label[targets]
                done += len(targets)
                tell(protocol.Progress(done=done, total=total, unit="images"))

        measured = measure(
            asked.network(request, saved), mapped(), num_classes=len(request.classes), device=torch.device("cpu")
        )
    if not math.isfinite(measured.sums.loss):
        raise errors.OrchError("The loss on these pictures is not finite.", why="The training of the job diverged.")
    result = report(measured, step=saved.state.step, sha256=request.sha256, classes=request.classes)
    say({"evaluation": result.model_dump(mode="json", exclude={"type"}), "hash": data.hash, "source": data.source})


def _labels(known: Sequence[str], found: Sequence[str]) -> list[int]:
    """Return the index of the network's logit for each class of the data."""
    if set(known) != set(found):
        missing, extra = (", ".join(sorted(names)) for names in (set(known) - set(found), set(found) - set(known)))
        sides = [f"only the network has {missing}"] * bool(missing) + [f"only the data has {extra}"] * bool(extra)
        said = "; ".join(sides)
        raise errors.OrchError(
            "The data set has other classes than the network.",
            why=f"{said[0].upper()}{said[1:]}.",
            hint="Classes are the folders of a split: name them as those that the network was trained on.",
        )
    return [known.index(name) for name in found]


def _tell(say: answers.Say, progress: protocol.Progress) -> None:
    say({"progress": {"done": progress.done, "total": progress.total, "unit": progress.unit}})


if __name__ == "__main__":
    sys.exit(main())
