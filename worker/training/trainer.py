"""The training's state and its one move, the optimizer step: what a checkpoint captures and restores."""

import math

import torch
from torch.nn import functional

from orchestrator import errors, failpoints
from orchestrator.core import specs, states
from worker.models import zoo
from worker.training import checkpoint, metrics, numerics, optim


class Trainer:
    """Network, optimizer, position, sums.

    A step's loss stays on the device until `settle`: nothing waits for a GPU in between.
    """

    def __init__(self, spec: specs.JobSpec, *, data_hash: str, classes: tuple[str, ...], device: torch.device) -> None:
        numerics.seed(spec.seed)
        self.spec = spec
        self.data_hash = data_hash
        self.classes = classes
        self.device = device
        self.model = zoo.build(spec, len(classes)).to(device)
        self.optimizer = optim.build(spec, self.model.parameters())
        self.epoch = 0  #: epochs completed
        self.step = 0  #: optimizer steps completed, over the whole training
        self.sums = metrics.Sums()  #: training split, the epoch in work
        self.best_accuracy: float | None = None
        self._pending: list[tuple[int, int, torch.Tensor, torch.Tensor]] = []
        self._diverged_at: int | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_step(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Learn from one batch: images (N, 3, H, W), targets (N,)."""
        truth = targets.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(images.to(self.device, non_blocking=True))
        loss = functional.cross_entropy(logits, truth)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        self.step += 1
        correct = (logits.detach().max(dim=1).indices == truth).sum()
        self._pending.append((self.step, len(targets), loss.detach(), correct))

    def settle(self) -> tuple[tuple[int, str, float], ...]:
        """Add the pending steps to the sums, in order, and return (step, "loss", loss) of each.

        Ends before the first loss that is not finite; `check_finite` raises then.
        """
        if not self._pending:
            return ()
        steps, sizes, losses, corrects = zip(*self._pending, strict=True)
        self._pending.clear()
        rows = []
        for step, images, loss, correct in zip(
            steps, sizes, torch.stack(losses).tolist(), torch.stack(corrects).tolist(), strict=True
        ):
            if failpoints.reach("train.loss") or not math.isfinite(loss):
                self._diverged_at = step
                break
            self.sums.add(loss=loss, correct=correct, images=images)
            rows.append((step, "loss", loss))
        return tuple(rows)

    def check_finite(self) -> None:
        """Raise `StageFailed` (diverged) if a settled loss was not finite."""
        if self._diverged_at is not None:
            raise self.diverged(f"The loss of step {self._diverged_at} is not finite.")

    def diverged(self, said: str) -> errors.StageFailed:
        """Return the failure of a training whose numbers are not finite; `said` names the step."""
        return errors.StageFailed(
            said,
            reason=states.Reason.DIVERGED,
            why=f"The training diverged at a learning rate of {self.lr:g}.",
            hint="Try a smaller --lr.",
        )

    def close_epoch(self, accuracy: float) -> bool:
        """Count the epoch as completed, with its validation accuracy; return whether that is the best so far."""
        best = self.best_accuracy is None or accuracy > self.best_accuracy
        if best:
            self.best_accuracy = accuracy
        self.epoch += 1
        self.sums = metrics.Sums()
        return best

    def capture(self) -> checkpoint.Checkpoint:
        """Return the settled state as it stands, sharing memory with it.

        Raises:
            StageFailed: diverged, when something in it is not finite.

        """
        state = self.optimizer.state_dict()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, values in state["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        if not torch.stack([value.isfinite().all() for value in tensors.values()]).all():
            raise self.diverged(f"Weights or optimizer are not finite after step {self.step}.")
        tensors |= {f"rng.{name}": value for name, value in numerics.generator_tensors(self.device).items()}
        return checkpoint.Checkpoint(
            state=checkpoint.State(
                spec=self.spec,
                data_hash=self.data_hash,
                classes=self.classes,
                epoch=self.epoch,
                step=self.step,
                sums=self.sums.model_copy(),
                best_accuracy=self.best_accuracy,
                optimizer=state["param_groups"],
                generators=numerics.generators(),
                numerics=numerics.Numerics.here(self.device),
            ),
            tensors=tensors,
        )

    def restore(self, found: checkpoint.Checkpoint) -> None:
        """Go on from `found`, which fits."""
        state = found.state
        self.model.load_state_dict(found.part("model"))
        by_parameter: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in found.part("optimizer").items():
            index, name = key.split(".", 1)
            # A copy of its own: the file's bytes are one buffer, whose parts lie as they come.
            by_parameter.setdefault(int(index), {})[name] = value.clone()
        self.optimizer.load_state_dict({"state": by_parameter, "param_groups": state.optimizer})
        self.epoch = state.epoch
        self.step = state.step
        self.sums = state.sums.model_copy()
        self.best_accuracy = state.best_accuracy
        numerics.restore_generators(state.generators, found.part("rng"), self.device)
