"""The training's state and its one move, the optimizer step: what a checkpoint captures and restores."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from orchestrator import errors, failpoints
from orchestrator.core import specs, stopping
from worker.data import loader
from worker.models import densenet, synchronised, zoo
from worker.training import (
    checkpoint,
    compiling,
    divergence,
    ema,
    kernels,
    metrics,
    mixing,
    numerics,
    optim,
    packing,
    parts,
    schedules,
    world,
)

#: Values of one step, by name; they are read when the step is settled.
Values = dict[str, torch.Tensor]


class Trainer:
    """Network, optimizer, position, sums.

    A step's loss stays on the device until `settle`: nothing waits for a GPU in between.
    """

    def __init__(
        self,
        spec: specs.JobSpec,
        *,
        data_hash: str,
        classes: tuple[str, ...],
        device: torch.device,
        steps_per_epoch: int,
    ) -> None:
        numerics.seed(spec.seed)
        self.spec = spec
        self.data_hash = data_hash
        self.classes = classes
        self.device = device
        self.model = zoo.build(spec, len(classes)).to(device)
        self.average = ema.Average(self.model, spec.ema) if spec.ema else None
        self.mix = mixing.Mixer(spec, len(classes))
        self.total = spec.epochs * steps_per_epoch  #: optimizer steps of the whole training
        self.epoch = 0  #: epochs completed
        self._begin_part()
        self.use(kernels.DEFAULT)
        self._room = packing.Room(device)
        self.world = world.ALONE
        self.step = 0  #: optimizer steps completed, over the whole training
        self.sums = metrics.Sums()  #: training split, the epoch in work
        self.best_accuracy: float | None = None
        self.watched: list[float] = []  #: what patience looks at, of each epoch; nothing without patience
        self._pending: list[tuple[int, int, Values]] = []
        self._diverged: str | None = None  #: what is not finite
        self.look: Callable[[], object] = lambda: None  #: called between two batches of a step

    def use(self, chosen: kernels.Kernels) -> None:
        """Compute what follows with these, from the first step on or from that of a checkpoint."""
        self.kernels = chosen
        self._scaler = chosen.scaler(self.device)
        self._pass: compiling.Pass | None = None  #: where it is compiled
        for network in (self.model, *([self.average.network] if self.average else [])):
            network.to(memory_format=chosen.memory_format)

    def compile(self, folder: Path) -> str:
        """Compile the pass, which `kernels` says from here on; return how that went.

        It is that of all of the network, which may come to learn behind epochs of the head alone. Where it cannot be,
        or backward is to keep less than all, it is not, and the training goes on without.
        """
        if self.model.memory != "plain":
            self._computes_by(None, code="")
            return f"not compiled, and computed the usual way: memory is {self.model.memory}"
        parts.let_learn(self.model, self.spec.train)
        parts.set_training(self.model, self.spec.train)
        shape = (self.spec.batch_size, 3, self.spec.image_size, self.spec.image_size)
        made, said, code = compiling.attempt(self.model, shape, self.kernels, self.device, folder=folder)
        parts.let_learn(self.model, self.part)
        self._computes_by(made, code=code)
        return said

    def _computes_by(self, made: compiling.Pass | None, *, code: str) -> None:
        """Take a pass, with all else as it is: a loss scale that was restored stands."""
        self.kernels = self.kernels.model_copy(update={"compiled": made is not None, "code": code})
        self._pass = made

    def join(self, ranks: world.World) -> None:
        """Train together with others from here on: each step's numbers are those of all ranks' pictures."""
        self.world = ranks
        if ranks.share.ranks > 1:
            synchronised.convert(self.model, ranks)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def network(self) -> nn.Module:
        """What is measured: the average of the weights where one is kept."""
        return self._learning(self.average.network if self.average else self.model)

    @property
    def over(self) -> bool:
        """Whether no epoch is left to train."""
        return self.epoch >= stopping.last_epoch(self.spec, self.watched)

    def train_step(self, images: torch.Tensor, targets: torch.Tensor, *, of: int | None = None) -> None:
        """Learn from the pictures of one step: images (N, 3, H, W), targets (N,).

        Of several ranks each brings what it has loaded of a step `of` so many.
        """
        count = len(targets) if of is None else of
        optim.set_rate(self.optimizer, schedules.rate(self.spec, step=self.step, total=self.total))
        pixels, truth = images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
        if self.part != "head":  # which sees features, without augmentation
            pixels, truth = self.mix(pixels, truth, step=self.step)
            pixels = pixels.contiguous(memory_format=self.kernels.memory_format)
        self.optimizer.zero_grad(set_to_none=True)
        batches = loader.parts(count, self.spec.batch_size)
        if self.world.share.ranks == 1:
            values = self._gradients(pixels, truth, batches, count)
        else:
            values = self._together(pixels, truth, batches, count)
        if self.spec.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            # https://arxiv.org/abs/1211.5063
            values["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_norm)
        self._scaler.step(self.optimizer)  # leaves a step out whose gradients overflow in fp16
        self._scaler.update()
        self.step += 1
        if self.average:
            self.average.update(self.model, step=self.step)
        self._pending.append((self.step, count, values))

    def _together(self, pixels: torch.Tensor, truth: torch.Tensor, batches: list[int], count: int) -> Values:
        """Add up gradients, loss and correct over the ranks, each of which learns from its part of every batch."""
        share = self.world.share
        learnt = share.learnt(batches, neighbours=self.spec.mixes and self.part != "head")
        if len(learnt) != len(pixels):
            pixels, truth = pixels[learnt], truth[learnt]
        if self.spec.dropout:
            numerics.seed_step(self.spec.seed, step=self.step, rank=share.rank)
        values = self._gradients(pixels, truth, share.sizes(batches), count)
        gradients = [value.grad for value in self.model.parameters() if value.grad is not None]
        sums = (values["loss"].reshape(1), values["correct"].reshape(1).float())
        flat = self.world.total(torch.cat([*(gradient.reshape(-1) for gradient in gradients), *sums]))
        *parts_, values["loss"], values["correct"] = torch.split(flat, [*(each.numel() for each in gradients), 1, 1])
        for gradient, part in zip(gradients, parts_, strict=True):
            gradient.copy_(part.view_as(gradient))
        return values | {name: values[name].reshape(()) for name in ("loss", "correct")}

    def _gradients(self, images: torch.Tensor, targets: torch.Tensor, sizes: list[int], count: int) -> Values:
        """Add up the gradients of a step's batches, each by its share of `count` pictures; return loss and correct."""
        losses: list[torch.Tensor] = []
        corrects: list[torch.Tensor] = []
        for pixels, truth in zip(torch.split(images, sizes), torch.split(targets, sizes), strict=True):
            if losses:
                self.look()
            with self.kernels.autocast(self.device):
                logits = self._forward(pixels)
            if len(pixels):
                loss = functional.cross_entropy(logits.float(), truth, label_smoothing=self.spec.label_smoothing)
                loss = loss * (len(pixels) / count)
            else:  # a rank may have none of a small batch: nothing, whose gradients are nothing on every weight
                loss = logits.float().sum()
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            labels = truth if truth.ndim == 1 else truth.max(dim=1).indices  # of mixed ones the larger share's
            losses.append(loss.detach())
            corrects.append((logits.detach().max(dim=1).indices == labels).sum())
        values = {"loss": torch.stack(losses).sum(), "correct": torch.stack(corrects).sum()}
        if self.spec.schedule != "constant" or self.spec.warmup_epochs:
            values["lr"] = torch.tensor(self.lr, dtype=torch.float64)
        return values

    def settle(self) -> tuple[tuple[int, str, float], ...]:
        """Add the pending steps to the sums, in order, and return (step, name, value) of their loss and what moved.

        Ends before the first step with one that is not finite; `check_finite` raises then.
        """
        if not self._pending:
            return ()
        pending, rows = self._pending, []
        self._pending = []
        for (step, images, _), values in zip(pending, _read([values for _, _, values in pending]), strict=True):
            correct = int(values.pop("correct"))
            if self._scaler.is_enabled() and not math.isfinite(values.get("grad_norm", 0.0)):
                del values["grad_norm"]  # the step was left out, and the next ones are scaled by less
            wrong = [name for name, value in values.items() if not math.isfinite(value)]
            if failpoints.reach("train.loss") or wrong:
                self._diverged = f"The {'gradient' if wrong == ['grad_norm'] else 'loss'} of step {step} is not finite."
                break
            self.sums.add(loss=values["loss"], correct=correct, images=images)
            rows += [(step, name, value) for name, value in values.items()]
        return tuple(rows)

    def check_finite(self) -> None:
        """Raise `StageFailed` (diverged) if a settled value was not finite."""
        if self._diverged is not None:
            raise self.diverged(self._diverged)

    def diverged(self, said: str) -> errors.StageFailed:
        """Return the failure of a training whose numbers are not finite; `said` names the step."""
        return divergence.failure(said, lr=self.lr)

    def close_epoch(self, measured: metrics.Sums) -> bool:
        """Count the epoch as completed, with its validation; return whether its accuracy is the best so far."""
        accuracy = measured.accuracy
        best = self.best_accuracy is None or accuracy > self.best_accuracy
        if best:
            self.best_accuracy = accuracy
        if self.spec.patience is not None:
            self.watched.append(accuracy if self.spec.patience_metric == "accuracy" else measured.mean_loss)
        self.epoch += 1
        self.sums = metrics.Sums()
        if self.spec.learning(self.epoch) != self.part:
            self._begin_part()
        return best

    def _begin_part(self, like: Sequence[Mapping[str, Any]] = ()) -> None:
        """Let learn what is to learn now, with an optimizer of its own; it is `like` that of a checkpoint."""
        self.part = self.spec.learning(self.epoch)
        self.optimizer = optim.build(self.spec, parts.let_learn(self.model, self.part), like=like)

    def _learning(self, network: densenet.DenseNet) -> nn.Module:
        """Return what batches go through: all of a network, or its classifier where that learns alone, on features."""
        return network.linear if self.part == "head" else network

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch."""
        compiled = self._pass if self.part == self.spec.train else None
        logits: torch.Tensor = (compiled or self._learning(self.model))(pixels)
        return logits

    def _as_weights_lie(self, value: torch.Tensor) -> torch.Tensor:
        convolution = value.ndim == 4  # noqa: PLR2004 - (outputs, inputs, height, width)
        return value.clone(memory_format=self.kernels.memory_format) if convolution else value.clone()

    @property
    def nbytes(self) -> int:
        """What a checkpoint's tensors take, once the first step has made the optimizer's."""
        return sum(value.nbytes for value in self._tensors().values())

    def _tensors(self) -> dict[str, torch.Tensor]:
        networks = {"model": self.model} | ({"ema": self.average.network} if self.average else {})
        tensors = {
            f"{name}.{key}": value
            for name, network in networks.items()
            for key, value in network.state_dict(keep_vars=True).items()  # each as it is: to detach it takes as long
        }
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        return tensors

    def capture(self) -> checkpoint.Snapshot:
        """Return a copy of the settled state, good until the next one: all are made in the same memory."""
        generators = {f"rng.{name}": value for name, value in numerics.generator_tensors(self.device).items()}
        held = self._room.hold(self._tensors() | generators)
        return checkpoint.Snapshot(
            state=checkpoint.State(
                spec=self.spec,
                data_hash=self.data_hash,
                classes=self.classes,
                epoch=self.epoch,
                step=self.step,
                sums=self.sums.model_copy(),
                best_accuracy=self.best_accuracy,
                watched=tuple(self.watched),
                optimizer=self.optimizer.state_dict()["param_groups"],
                generators=numerics.generators(),
                numerics=numerics.Numerics.here(self.device, self.kernels, ranks=self.world.share.ranks),
                scaler=self._scaler.state_dict(),
            ),
            tensors=held.tensors,
            held=held,
        )

    def restore(self, found: checkpoint.Checkpoint) -> None:
        """Go on from `found`, which fits."""
        state = found.state
        self.use(state.numerics.kernels)
        self._scaler.load_state_dict(state.scaler)
        self.model.load_state_dict(found.part("model"))
        if self.average:
            self.average.network.load_state_dict(found.part("ema"))
        self.epoch = state.epoch
        self._begin_part(like=state.optimizer)
        by_parameter: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in found.part("optimizer").items():
            index, name = key.split(".", 1)
            # A copy of its own: the file's bytes are one buffer, whose parts lie as they come.
            by_parameter.setdefault(int(index), {})[name] = self._as_weights_lie(value)
        self.optimizer.load_state_dict({"state": by_parameter, "param_groups": state.optimizer})
        optim.begin(self.optimizer)
        self.step = state.step
        self.sums = state.sums.model_copy()
        self.best_accuracy = state.best_accuracy
        self.watched = list(state.watched)
        numerics.restore_generators(state.generators, found.part("rng"), self.device)


def _read(steps: list[Values]) -> Iterator[dict[str, float]]:
    """Yield the values of each step as numbers: all of one name are read from the device at once."""
    columns = [torch.stack([values[name] for values in steps]).tolist() for name in steps[0]]
    for numbers in zip(*columns, strict=True):
        yield dict(zip(steps[0], numbers, strict=True))
