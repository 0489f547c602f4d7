"""The epoch loop: train, measure, checkpoint; stop where it is told to."""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.core import stopping
from worker import protocol
from worker.data import loader
from worker.training import checkpoint, evaluate, features, parts, report, saving, trainer, usage

#: Writes a checkpoint into a folder; returns its path, size in bytes and sha256.
Write = Callable[[checkpoint.Snapshot, Path], tuple[Path, int, str]]


class Loop:
    """Runs a trainer over its epochs and tells `link` of it.

    `folder` takes the checkpoints, whose paths are told relative to `root`. `attempt` is whose they are. `write` stands
    in for what writes them.
    """

    def __init__(
        self,
        learner: trainer.Trainer,
        batches: loader.Loader,
        link: report.Link,
        *,
        root: Path,
        folder: Path,
        attempt: int,
        write: Write | None = None,
    ) -> None:
        self._write = write or checkpoint.write
        self._trainer = learner
        self._batches = batches
        self._link = link
        self._root = root
        self._folder = folder
        self._attempt = attempt
        self._features: features.Features | None = None
        self._spec = learner.spec
        self._ranks = learner.world
        self._meter = report.Meter(link, unit="steps")
        self._gauge = usage.Gauge(learner.device)
        self._steps_pace = report.Pace(report.STEPS_EVERY)
        self._saved = (learner.epoch, learner.step)
        self._saved_at = time.monotonic()
        self._writing = saving.Writing()
        self._has_room = not self._ranks.leads  #: for a checkpoint, as far as anybody has looked
        learner.look = self._remind

    def run(self) -> protocol.Ended:
        """Train to the last epoch, or to the next step after a stop; the state is on disk when this returns."""
        with self._writing:
            return self._run()

    def _run(self) -> protocol.Ended:
        learner = self._trainer
        self._meter.tell(**self._position())
        try:
            while not learner.over:
                used = self._train_epoch()
                measured = self._measure()
                if not math.isfinite(measured.sums.loss):
                    raise learner.diverged(f"The loss on the validation split is not finite after step {learner.step}.")
                epoch = learner.epoch + 1
                rows = (
                    learner.sums.row(epoch=epoch, split="train", lr=learner.lr, usage=used),
                    measured.sums.row(epoch=epoch, split="val"),
                )
                best = learner.close_epoch(measured.sums)
                self._save(rows, best=best)
        except report.Stopped:
            self._save()
            return protocol.Ended(how="stopped", last_step=learner.step)
        self._writing.wait()
        if early := stopping.said(self._spec, learner.watched):
            self._link.send(protocol.Note(kind="stopped_early", detail=early))
        return protocol.Ended(how="done", last_step=learner.step)

    def _measure(self) -> evaluate.Measured:
        """Measure what was trained on the validation split."""
        learner = self._trainer
        turn = 0 if learner.part == "head" else learner.epoch  # features stay with who has computed them
        return evaluate.measure(
            learner.network,
            self._seen(self._source().validation(turn=turn), self._batches.batches("val")),
            num_classes=len(learner.classes),
            device=learner.device,
            ranks=self._ranks,
            turn=turn,
        )

    def _train_epoch(self) -> protocol.Usage | None:
        """Train to the end of the epoch, and return what that took; None where all its steps were made before."""
        learner = self._trainer
        end = (learner.epoch + 1) * self._batches.steps_per_epoch
        start = learner.step - learner.epoch * self._batches.steps_per_epoch
        source = self._source()
        parts.set_training(learner.model, learner.part)
        self._gauge.begin()
        batches = self._gauge.watched(source.train(learner.epoch, start_step=start))
        sizes = self._batches.step_sizes()[start:]
        lap = time.monotonic()
        for (images, targets), size in zip(report.unless_stopped(batches, self._link), sizes, strict=True):
            learner.train_step(images, targets, of=size)
            if not self._has_room:  # the first step has made the optimizer's part of a checkpoint
                checkpoint.check_room(learner.nbytes, self._folder.parent)
                self._has_room = True
            now = time.monotonic()
            learner.sums.seconds += now - lap
            lap = now
            self._advance(size)
            if learner.step < end and self._checkpoint_due():  # an epoch's end has its own, with the metrics
                self._save()
        self._settle()  # waits for a GPU: the seconds of its last steps come in here
        learner.sums.seconds += time.monotonic() - lap
        return usage.together(self._gauge.end(), self._ranks) if sizes else None

    def _source(self) -> loader.Loader | features.Features:
        """Return where the batches come from: pictures, or their features while the classifier learns alone."""
        learner = self._trainer
        if learner.part != "head":
            self._features = None
            return self._batches
        if self._features is None:
            self._features = features.Features(
                learner.model, self._batches, learner.device, watched=self._seen, ranks=self._ranks
            )
        return self._features

    def _checkpoint_due(self) -> bool:
        every = self._spec.checkpoint_steps
        if every is not None and self._trainer.step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= self._spec.checkpoint_minutes * 60

    def _save(self, rows: tuple[protocol.EpochMetrics, ...] = (), *, best: bool = False) -> None:
        """See that a checkpoint is written, unless this very state was; of several ranks one does that.

        Training stands still while the state is copied, and before that until the checkpoint before is on disk: the
        copies are all made in the same memory.
        """
        learner = self._trainer
        self._settle()  # so that step losses are told of before the checkpoint that stands behind them
        if not self._ranks.leads:
            self._saved_at = time.monotonic()
            return
        if (learner.epoch, learner.step) == self._saved:
            return
        self._writing.wait()
        self._writing.begin(functools.partial(self._keep, learner.capture(), rows, best=best))
        self._saved = (learner.epoch, learner.step)
        self._saved_at = time.monotonic()

    def _keep(self, snapshot: checkpoint.Snapshot, rows: tuple[protocol.EpochMetrics, ...], *, best: bool) -> None:
        """Write a checkpoint, then say so: in a thread of its own."""
        path, size, sha256 = self._write(snapshot, self._folder)
        info = protocol.CheckpointInfo(
            attempt=self._attempt,
            epoch=snapshot.state.epoch,
            step=snapshot.state.step,
            path=path.relative_to(self._root).as_posix(),
            bytes=size,
            sha256=sha256,
            best=best,
            accuracy=rows[-1].accuracy if rows else None,
        )
        self._link.send(protocol.CheckpointWritten(checkpoint=info, metrics=rows))

    def _settle(self) -> None:
        rows = self._trainer.settle()
        if rows:
            self._link.send(protocol.Steps(values=rows))
        if self._ranks.leads:  # it has the last word, behind the steps that it has told of
            self._trainer.check_finite()

    def _advance(self, images: int) -> None:
        self._writing.look()
        if self._steps_pace.due():
            self._settle()
        self._meter.advance(images, **self._position())

    def _remind(self) -> None:
        """Give a sign of life within a step: of many batches, it may take longer than the stall time."""
        self._meter.remind(**self._position())

    def _position(self) -> dict[str, int]:
        epochs = self._spec.epochs
        return {
            "done": self._trainer.step,
            "total": self._trainer.total,
            "epoch": min(self._trainer.epoch + 1, epochs),
            "epochs": epochs,
        }

    def _seen(self, batches: Iterable[loader.Batch], sizes: Sequence[int]) -> Iterator[loader.Batch]:
        """Pass batches on that are no step of the training, of a pass with these sizes; each is a sign of life."""
        looks = self._ranks.share.rounds(len(sizes))
        for batch in report.unless_stopped(batches, self._link, looks=looks):
            yield batch
            self._advance(0)
