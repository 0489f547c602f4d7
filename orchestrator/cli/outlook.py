"""What people are told of a training before it begins: place, time, memory, what would make it faster."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli import specflags, words

if TYPE_CHECKING:
    from orchestrator.core.specs import JobSpec
    from orchestrator.service.rehearsal import Rehearsal
    from orchestrator.service.speeds import Foreseen

#: How what was measured is called where it is not the recipe's own.
_OTHERWISE = {
    "host": "on another host",
    "precision": "in another precision",
    "train": "with another part that learns",
    "gpus": "on another number of devices",
    "network": "with another network",
    "memory": "with another --memory",
    "image_size": "at another size",
    "layout": "in another layout",
    "compile": "with another --compile",
    "batch_size": "in another batch size",
    "pipeline": "with another --pipeline",
    "accumulate": "with another --accumulate",
}

#: From this many times on, digits behind the point say nothing.
_WHOLE = 3


def place(rehearsed: "Rehearsal") -> Iterator[str]:
    """Yield where a job would stand in the queue, and when it would begin and end."""
    if rehearsed.same is not None:
        yield f"Job {rehearsed.same.id} has this result: nothing is queued without --force."
        return
    from orchestrator.service import query

    answer = rehearsed.answer
    if answer is None:
        return
    if answer.job.idempotency_key is not None:
        yield f"The idempotency key is known: it is job {answer.job.id}, which is {answer.job.state}."
        return
    unfit = query.unfit(answer.job, [one.worker for one in answer.verdicts])
    yield from words.unfit(unfit)
    yield f"If you submit it now: {answer.sentence[0].lower()}{answer.sentence[1:]}"
    if answer.begins and answer.ends:
        begins, ends = (words.between(one.low, one.high) for one in (answer.begins, answer.ends))
        yield f"It begins in {begins}, and ends in {ends}."


def speed(spec: "JobSpec", foreseen: "Foreseen | None") -> Iterator[str]:
    """Yield how long a recipe takes, and what would make it faster."""
    if foreseen is None:
        yield "How long it takes, nobody has measured on such a device yet."
        return
    yield time(spec, foreseen)
    for one in foreseen.faster:
        flags = " ".join(specflags.written(dict(one.changes)))
        most = "about" if one.measured else "up to"
        yield f"{flags}: {most} {_times(one.times)} times as fast, {one.why}."


def memory(spec: "JobSpec") -> str:
    """Say what memory a recipe takes, and what it would with the other modes."""
    from orchestrator.core import memory, networks

    usual = spec.model_copy(update={"compile": False})
    sizes = {mode: words.size(memory.peak(usual, mode=mode)) for mode in networks.MEMORIES}
    own = sizes.pop(spec.memory)
    compiled = words.size(memory.peak(spec, mode=spec.memory)) if spec.compile else None  # with no other mode
    taken = f"{own} of memory" if compiled is None else f"{compiled} of memory, without --compile {own}"
    others = " and ".join(f"{size} with --memory {mode}" for mode, size in sizes.items())
    each = "the training" if spec.gpus == 1 else f"each of the {spec.gpus} processes of the training"
    same = set(sizes.values()) == {own}  # next to nothing is kept where little or nothing but the classifier learns
    modes = "whatever --memory says" if same else others
    precision, less = ("fp32", "; less where auto takes bf16") if spec.precision == "auto" else (spec.precision, "")
    return f"On a CPU in {precision} {each} takes about {taken}, {modes}{less}."


def time(spec: "JobSpec", foreseen: "Foreseen") -> str:
    """Say how long a recipe takes, and how that is known."""
    return f"{_time(spec, foreseen)}, {_basis(foreseen)}."


def _time(spec: "JobSpec", foreseen: "Foreseen") -> str:
    plan = foreseen.plan
    epoch, total = words.about(plan.epoch.low, plan.epoch.high), words.about(plan.total.low, plan.total.high)
    if foreseen.counts is None:
        return f"For every 1,000 pictures it takes {epoch} an epoch, {total} in all"
    return f"It takes {total}" if spec.epochs == 1 else f"It takes {total}, {epoch} an epoch"


def _basis(foreseen: "Foreseen") -> str:
    basis, differs = foreseen.rate.basis, [name for name in foreseen.rate.differs if name != "host"]
    otherwise = "".join(f", {_OTHERWISE[name]}" for name in differs)
    if basis.job is None:
        return f"by what {basis.host} took{otherwise}: nothing like it was measured here"
    return f"as job {basis.job} measured on {basis.host}{otherwise}"


def _times(times: float) -> str:
    return f"{times:.0f}" if times >= _WHOLE else f"{times:.1f}"
