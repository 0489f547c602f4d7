"""`python -m worker.training.replay`: a part of a training done once more, and compared to the last bit.

The same engine as any training's, from one of its checkpoints or from the start; nothing is written, and no database
told.
"""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel

from orchestrator import errors
from worker import answers, protocol
from worker.training import checkpoint, environment, loop, ranks, report, stage, trainer

_CHOSEN = ("layout", "precision")


class Request(answers.Request):
    """What to do again: `assignment` goes on from its one checkpoint, or from the start.

    It ends with `last_step`, or behind the step and epoch of `until`, whose weights are compared then. `losses` are
    those recorded by step, `ran_on` is what the training ran on, as far as that is known.
    """

    assignment: protocol.Assignment
    last_step: int
    until: protocol.CheckpointInfo | None
    losses: dict[int, float]
    ran_on: protocol.Environment | None


def main() -> int:
    """Answer the request on standard input."""
    return answers.serve(Request, replay)


def replay(request: Request, say: answers.Say) -> None:
    """Train, and say what is the same.

    Raises:
        StageFailed: the data cannot be had, or the checkpoint to begin with cannot be used.
        OrchError: the checkpoint to compare with cannot be used.

    """
    team = ranks.started(request.assignment, functools.partial(stage.follow, request.assignment))
    compared = _Compared(request, say)
    work = functools.partial(_work, request, compared, team=team)
    ended = team.lead(
        lambda: stage.with_data(work, request.assignment, compared),
        say=lambda failed: say({"refused": {"message": failed.error}}),
    )
    say({"compared": compared.result() | {"last_step": ended.last_step}})


def _work(
    request: Request,
    compared: "_Compared",
    data: protocol.DatasetInfo,
    assignment: protocol.Assignment,
    link: report.Link,
    *,
    team: ranks.Team,
) -> protocol.Ended:
    learner, batches = stage.prepared(data, assignment, link, team.share, compiles=False)
    if not assignment.checkpoints:  # else it goes on as that of its beginning says
        _choose(learner, request.ran_on)
        if request.ran_on is None or request.ran_on.compiled:  # else it may have had no compiler
            stage.compile_pass(learner, assignment, link)
    compared.begin(learner)
    return loop.Loop(
        learner,
        batches,
        stage.joined(learner, data, link, team),
        root=Path(assignment.artifact_root),
        folder=Path(assignment.attempt_dir) / "checkpoints",
        attempt=assignment.attempt,
        write=compared.look,
    ).run()


def _choose(learner: trainer.Trainer, ran_on: protocol.Environment | None) -> None:
    """Compute as the training did: a choice by the clock may come out differently here."""
    if ran_on is not None:
        before = learner.kernels.model_copy(update=ran_on.model_dump(include=set(_CHOSEN)))
        if before != learner.kernels:
            learner.use(before)


class _Compared:
    """The following end of the training: compares what it is told, and ends it where it has been seen."""

    def __init__(self, request: Request, say: answers.Say) -> None:
        self._request = request
        self._say = say
        self._learner: trainer.Trainer | None = None
        self._first = 0
        self._losses = 0
        self._loss: dict[str, object] | None = None  #: the first that is another
        self._tensors: list[str] | None = None  #: names of those that are others; None before they were compared
        self._elsewhere: list[str] = []  #: what it runs on now and did not then

    def begin(self, learner: trainer.Trainer) -> None:
        """Take in what trains, at its first step."""
        self._learner, self._first = learner, learner.step
        here, before = environment.here(learner), self._request.ran_on
        if before is not None:
            self._elsewhere += _differences(here, before)

    @property
    def stop_requested(self) -> "_Compared":
        """Set when all has been seen."""
        return self

    def is_set(self) -> bool:
        """Whether the training has come to its end: behind the validation, where the checkpoint is behind one."""
        learner, until = self._learner, self._request.until
        if learner is None:
            return False
        if until is None or self._request.last_step < until.step:
            return learner.step >= self._request.last_step
        return (learner.step, learner.epoch) >= (until.step, until.epoch)

    def send(self, message: BaseModel) -> None:
        """Compare losses; pass on how far it is."""
        if isinstance(message, protocol.Steps):
            for step, name, value in message.values:
                if name == "loss":
                    self._compare(step, value)
        elif isinstance(message, protocol.Progress) and self._learner is not None:
            done, total = message.done - self._first, self._request.last_step - self._first
            self._say({"progress": {"done": done, "total": total, "unit": message.unit}})
        elif isinstance(message, protocol.Progress):
            self._say({"progress": message.model_dump(include={"done", "total", "unit"})})
        elif isinstance(message, protocol.Note) and message.kind == "numerics_changed":
            self._elsewhere.append(message.detail)

    def _compare(self, step: int, value: float) -> None:
        recorded = self._request.losses.get(step)
        if recorded is None or step > self._request.last_step:
            return
        self._losses += 1
        if value != recorded and self._loss is None:
            self._loss = {"step": step, "recorded": recorded, "replayed": value}

    def look(self, found: checkpoint.Snapshot, folder: Path) -> tuple[Path, int, str]:
        """Compare a checkpoint in place of writing it, where it is the one."""
        until = self._request.until
        if until is not None and (found.state.step, found.state.epoch) == (until.step, until.epoch):
            found.held.arrived()
            self._tensors = _others(found, self._recorded(until))
        return folder / f"step-{found.state.step}", 0, ""

    def _recorded(self, until: protocol.CheckpointInfo) -> checkpoint.Checkpoint:
        root = Path(self._request.assignment.artifact_root)
        try:
            return checkpoint.read(checkpoint.below(root, until.path), size=until.bytes, sha256=until.sha256)
        except checkpoint.Damaged as error:
            raise errors.OrchError(f"The checkpoint {until.path} cannot be used: {error}.") from error

    def result(self) -> dict[str, object]:
        """Return what was compared, and what was not the same."""
        return {
            "first_step": self._first,
            "losses": self._losses,
            "loss": self._loss,
            "tensors": self._tensors,
            "elsewhere": list(dict.fromkeys(self._elsewhere)),
        }


def _others(found: checkpoint.Checkpoint, recorded: checkpoint.Checkpoint) -> list[str]:
    """Return the names of what is not equal to the last bit in two checkpoints."""
    tensors = [
        name
        for name in sorted(found.tensors.keys() | recorded.tensors.keys())
        if not _same(found.tensors.get(name), recorded.tensors.get(name))
    ]
    # How long something took, and where, is no result; a spec may have been extended since.
    here, there = (
        one.state.model_dump(mode="json", exclude={"sums": {"seconds"}, "spec": True, "numerics": True})
        for one in (found, recorded)
    )
    return tensors + [name for name in here if here[name] != there[name]]


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(*(value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)))


def _differences(here: protocol.Environment, before: protocol.Environment) -> list[str]:
    """Return what differs, each as `name: here, before there`."""
    versions = _changed(here.versions, before.versions)
    return versions + _changed(here.model_dump(exclude={"versions"}), before.model_dump(exclude={"versions"}))


def _changed(here: Mapping[str, object], before: Mapping[str, object]) -> list[str]:
    names = [name for name in before if name in here and here[name] != before[name]]
    return [f"{name}: {str(here[name]) or 'none'}, before {str(before[name]) or 'none'}" for name in names]


if __name__ == "__main__":
    sys.exit(main())
