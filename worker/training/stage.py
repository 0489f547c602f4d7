"""The stages train and evaluate: from an assignment to the engine and back to messages.

A fork server imports this module once and forks for each job: importing it must cost the job nothing, and must run no
tensor operation and no CUDA call, whose threads would not survive the fork.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from orchestrator import config, errors
from orchestrator.core import specs, states
from worker import folders, protocol, stage
from worker.data import loader, shares, supply
from worker.models import densenet, zoo
from worker.training import (
    checkpoint,
    divergence,
    environment,
    evaluate,
    kernels,
    loop,
    numerics,
    ranks,
    report,
    start,
    trainer,
)

#: A stage's work, once its data is on this host.
Work = Callable[[protocol.DatasetInfo, protocol.Assignment, report.Link], protocol.Ended]


def main_train(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train, and return the exit code of the process; where the assignment has several devices it forks their ranks."""
    team = ranks.started(assignment, functools.partial(follow, assignment))
    work = functools.partial(train, team=team)
    return stage.run(connection, lambda link: team.lead(lambda: with_data(work, assignment, link), say=link.end))


def main_evaluate(assignment: protocol.Assignment, connection: Connection) -> int:
    """Evaluate the best checkpoint, and return the exit code of the process."""
    return stage.run(connection, lambda link: with_data(measure, assignment, link))


def with_data(work: Work, assignment: protocol.Assignment, link: report.Link) -> protocol.Ended:
    """Fetch the data set where this host lacks it, then do the work; return how it ended."""
    used = supply.using(
        assignment.spec,
        expected_hash=assignment.data_hash,
        settings=_settings(assignment),
        report=functools.partial(_tell, link),
    )
    with contextlib.ExitStack() as stack:
        try:
            with _leaving(link):
                data = stack.enter_context(used)
        except report.Stopped:
            return protocol.Ended(how="stopped")
        return work(data, assignment, link)


def train(
    data: protocol.DatasetInfo, assignment: protocol.Assignment, link: report.Link, *, team: ranks.Team = ranks.ALONE
) -> protocol.Ended:
    """Train on `data` from the newest checkpoint that verifies, or from the start; return how it ended."""
    try:
        learner, batches = prepared(data, assignment, link, team.share)
    except report.Stopped:
        return protocol.Ended(how="stopped", last_step=0)
    link.send(environment.here(learner))
    with batches:
        return _looped(learner, batches, assignment, joined(learner, data, link, team))


def joined(learner: trainer.Trainer, data: protocol.DatasetInfo, link: report.Link, team: ranks.Team) -> report.Link:
    """Let the other ranks begin where `learner` stands, and return the link by which all stop at the same step."""
    learner.join(team.gather(data, lambda: b"".join(learner.capture().pieces()), learner.device))
    return link if team.share.ranks == 1 else report.Agreed(link, learner.world.agreed)


def follow(assignment: protocol.Assignment, seat: ranks.Seat) -> None:
    """Train as one of several ranks, from the state in which rank 0 begins; it alone says and keeps anything."""
    data, state = seat.told()
    learner, batches = _built(data, assignment, seat.share)
    learner.model.use_memory(assignment.memory or learner.spec.memory)
    begun = checkpoint.unpacked(state)
    learner.restore(begun)
    numerics.keep_threads(begun.state.numerics.threads)
    with batches:
        learner.join(seat.join(learner.device))
        _looped(learner, batches, assignment, report.Agreed(None, learner.world.agreed))


def prepared(
    data: protocol.DatasetInfo,
    assignment: protocol.Assignment,
    link: report.Link,
    share: shares.Share = shares.ALONE,
    *,
    compiles: bool = True,
) -> tuple[trainer.Trainer, loader.Loader]:
    """Return what trains and its batches, brought to where the assignment goes on; raises `report.Stopped`.

    At a training's first step its pass is compiled where the job asks for it, unless the caller does that: `compiles`.
    """
    _check_devices(assignment, share)
    learner, batches = _built(data, assignment, share)
    _use_memory(learner, assignment, link)
    _begin(learner, assignment, link, share, compiles=compiles)
    return learner, batches


def _built(
    data: protocol.DatasetInfo, assignment: protocol.Assignment, share: shares.Share
) -> tuple[trainer.Trainer, loader.Loader]:
    """Return what trains on a rank's device, at its start, and its batches."""
    spec = assignment.spec.masked()  # the data is here, and a checkpoint keeps the spec
    device = numerics.use(assignment.devices[share.rank], threads=assignment.threads, rank=share.rank)
    _check_batch(data, spec)
    batches = loader.Loader(data, spec, settings=_settings(assignment), pin_memory=device.type == "cuda", share=share)
    learner = trainer.Trainer(
        spec, data_hash=data.hash, classes=data.classes, device=device, steps_per_epoch=batches.steps_per_epoch
    )
    return learner, batches


def _looped(
    learner: trainer.Trainer, batches: loader.Loader, assignment: protocol.Assignment, link: report.Link
) -> protocol.Ended:
    if not learner.over and (found := batches.choose(learner.epoch)) is not None:
        _note(link, "loading", found)
    return loop.Loop(
        learner,
        batches,
        link,
        root=Path(assignment.artifact_root),
        folder=Path(assignment.attempt_dir) / "checkpoints",
        attempt=assignment.attempt,
    ).run()


def measure(data: protocol.DatasetInfo, assignment: protocol.Assignment, link: report.Link) -> protocol.Ended:
    """Measure the best checkpoint that verifies, else the newest, on the validation split; return how it ended."""
    spec = assignment.spec.masked()  # the data is here, and a checkpoint keeps the spec
    device = numerics.use(assignment.devices[0], threads=assignment.threads)
    found = checkpoint.first_valid(
        sorted(assignment.checkpoints, key=lambda info: not info.best),
        root=Path(assignment.artifact_root),
        check=functools.partial(checkpoint.check_fit, spec=spec, data_hash=data.hash, classes=data.classes),
        damaged=functools.partial(_note, link, "checkpoint_damaged"),
    )
    if found is None:
        raise errors.StageFailed(
            "There is nothing to evaluate.",
            reason=states.Reason.NO_VALID_CHECKPOINT,
            why="The training recorded no checkpoint.",
            hint="Train anew: `orch retry --from-start` the job.",
        )
    info, saved = found
    network = zoo.build(spec, len(data.classes)).to(device)
    network.load_state_dict(saved.weights())
    network.to(memory_format=saved.state.numerics.kernels.memory_format)
    try:
        with loader.Loader(data, spec, settings=_settings(assignment), pin_memory=device.type == "cuda") as batches:
            measured = _measure(network, batches, device, link)
    except report.Stopped:
        return protocol.Ended(how="stopped", last_step=info.step)
    if not math.isfinite(measured.sums.loss):
        said = f"The loss on the validation split is not finite with the checkpoint of step {info.step}."
        raise divergence.failure(said, lr=spec.lr)
    link.send(evaluate.report(measured, step=info.step, sha256=info.sha256, classes=data.classes))
    return protocol.Ended(how="done", last_step=info.step)


def _check_devices(assignment: protocol.Assignment, share: shares.Share) -> None:
    """Raise `StageFailed` (user_error) unless the job has as many devices as it wants, with a rank for each."""
    wanted, given = assignment.spec.gpus, len(assignment.devices)
    if wanted == given == share.ranks:
        return
    raise errors.StageFailed(
        f"The job wants {wanted} devices together, and has {given} here, for {share.ranks} of its processes.",
        reason=states.Reason.USER_ERROR,
        hint=f"Submit it with --gpus {given}.",
    )


def _check_batch(data: protocol.DatasetInfo, spec: specs.JobSpec) -> None:
    """Raise `StageFailed` (user_error) unless the training split fills the batches of a step."""
    images = data.counts["train"]
    if images < spec.step_size:
        batches = "batch" if spec.accumulate == 1 else f"step of {spec.accumulate} batches"
        raise errors.StageFailed(
            f"A {batches} of {spec.batch_size} is larger than the training split, which has {images} pictures.",
            reason=states.Reason.USER_ERROR,
            hint=f"Use --batch-size {max(2, images // spec.accumulate)} or smaller.",
        )


def _use_memory(learner: trainer.Trainer, assignment: protocol.Assignment, link: report.Link) -> None:
    """Keep less for backward than the spec says, where earlier attempts ran out of memory; tell of it."""
    mode, asked = assignment.memory, learner.spec.memory
    if mode is None or mode == asked:
        return
    learner.model.use_memory(mode)
    _note(
        link, "leaner_memory", f"{mode} in place of {asked}, which ran out of memory: batch and numbers stay the same"
    )


def _begin(
    learner: trainer.Trainer,
    assignment: protocol.Assignment,
    link: report.Link,
    share: shares.Share,
    *,
    compiles: bool,
) -> None:
    """Bring `learner` to the newest checkpoint that verifies, else to the weights it starts from; tell where it is."""
    found = checkpoint.first_valid(
        assignment.checkpoints,
        root=Path(assignment.artifact_root),
        check=functools.partial(
            checkpoint.check_fit, spec=learner.spec, data_hash=learner.data_hash, classes=learner.classes
        ),
        damaged=functools.partial(_note, link, "checkpoint_damaged"),
    )
    if found is None:
        with _leaving(link):
            source = start.load(
                learner.model,
                assignment,
                classes=learner.classes,
                settings=_settings(assignment),
                report=functools.partial(_tell, link),
            )
        link.send(protocol.Resumed(attempt=None, step=0))
        if source is not None:
            _note(link, "weights_loaded", source)
        look = functools.partial(_look, learner, link)
        pick = environment.layout_pick(learner, _settings(assignment))
        chosen, said = kernels.choose(learner.spec, learner.model, learner.device, look=look, pick=pick)
        learner.use(chosen)
        if said is not None:
            _note(link, "kernels", said)
        if compiles:
            compile_pass(learner, assignment, link)
        return
    info, saved = found
    learner.restore(saved)
    link.send(protocol.Resumed(attempt=info.attempt, step=info.step))
    before = saved.state.numerics
    if before.ranks == share.ranks:  # with other ranks the bits are others anyway, and threads are shared out anew
        numerics.keep_threads(before.threads)
    if before.compiled:  # what its first step was computed without, it goes on without
        compile_pass(learner, assignment, link)
    here = numerics.Numerics.here(learner.device, learner.kernels, ranks=share.ranks)
    differences = here.differences(before)
    if differences:
        _note(link, "numerics_changed", "; ".join(differences) + ": the last bits may differ from here on")


def compile_pass(learner: trainer.Trainer, assignment: protocol.Assignment, link: report.Link) -> None:
    """Compile the training pass where the job asks for it, or go on without; a stop waits, and it is no standstill."""
    if not learner.spec.compile:
        return
    here = protocol.Progress(done=learner.step, total=learner.total)
    with report.alive(link, here):
        said = learner.compile(folders.compiled(Path(assignment.data_dir)))
    _note(link, "compile", said)


def _look(learner: trainer.Trainer, link: report.Link) -> None:
    """Raise `Stopped` if a stop is wished; else give a sign of life, for a pass that is measured may take minutes."""
    report.raise_if_stopped(link)
    link.send(protocol.Progress(done=learner.step, total=learner.total))


def _measure(
    network: densenet.DenseNet, batches: loader.Loader, device: torch.device, link: report.Link
) -> evaluate.Measured:
    meter = report.Meter(link, unit="images")
    total = batches.images["val"]

    def counted() -> Iterator[loader.Batch]:
        done = 0
        meter.tell(done=done, total=total)
        for images, targets in report.unless_stopped(batches.validation(), link):
            yield images, targets
            done += len(targets)
            meter.advance(len(targets), done=done, total=total)

    return evaluate.measure(network, counted(), num_classes=network.linear.out_features, device=device)


def _settings(assignment: protocol.Assignment) -> config.Settings:
    return config.load(data_cache=Path(assignment.data_dir))


def _leaving(link: report.Link) -> contextlib.AbstractContextManager[None]:
    """Let a stop end the process while it waits for what this host lacks; who follows by no pipe has no such wish."""
    return stage.leaving(link) if isinstance(link, stage.Link) else contextlib.nullcontext()


def _tell(link: report.Link, progress: protocol.Progress) -> None:
    report.raise_if_stopped(link)
    link.send(progress)


def _note(link: report.Link, kind: str, detail: str) -> None:
    link.send(protocol.Note(kind=kind, detail=detail))
