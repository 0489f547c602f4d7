"""How values are said to people on a terminal."""

import math
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.core.states import JobState, Stage, WorkerState

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator, Mapping, Sequence

    from orchestrator.core.jobs import EpochMetric, Job, Worker

#: A state is a word and a symbol; the colour only helps.
SYMBOLS: dict[str, tuple[str, str]] = {
    JobState.QUEUED: ("○", "yellow"),
    JobState.RUNNING: ("●", "cyan"),
    JobState.PAUSED: ("◫", "yellow"),
    JobState.SUCCEEDED: ("✔", "green"),
    JobState.FAILED: ("✘", "red"),
    JobState.CANCELLED: ("⊘", "magenta"),
    WorkerState.ACTIVE: ("●", "green"),
    WorkerState.SPENT: ("◐", "yellow"),
    WorkerState.DRAINING: ("◐", "yellow"),
    WorkerState.UNHEALTHY: ("✘", "red"),
    WorkerState.STOPPED: ("○", ""),
    WorkerState.LOST: ("✘", "red"),
    "silent": ("?", "yellow"),
    "ok": ("✔", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✘", "red"),
}

#: Workers that a note names, of those that cannot run a job.
_SHOWN = 3

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def percent(share: float | None) -> str:
    """Return 0.6543 as 65.4 %."""
    return "" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float | None) -> str:
    """Return seconds in the two units that matter."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s" if seconds >= 1 or seconds == 0 else f"{seconds:.2f} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def between(low: float, high: float) -> str:
    """Return an interval of seconds: one figure where both say the same."""
    shortest, longest = duration(low), duration(high)
    return f"about {longest}" if shortest == longest else f"{shortest} to {longest}"


def about(low: float, high: float) -> str:
    """Return an interval of seconds by its middle, with the bounds where they say something else."""
    shortest, middle, longest = duration(low), duration(math.sqrt(low * high)), duration(high)
    return f"about {middle}" if shortest == longest else f"about {middle} ({shortest} to {longest})"


def moment(when: datetime | None) -> str:
    """Return a time in the local zone."""
    return "" if when is None else when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(when: datetime | None, now: datetime) -> str:
    """Return how long ago something was."""
    return "" if when is None else since((now - when).total_seconds())


def since(seconds: float) -> str:
    """Return how long ago something was that is so many seconds past."""
    seconds = max(0, int(seconds))
    units = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))
    return next((f"{seconds // size} {unit} ago" for size, unit in units if seconds >= size), "now")


def size(count: int) -> str:
    """Return bytes in a unit that suits them."""
    import humanize

    return str(humanize.naturalsize(count, binary=True))


def plural(count: int, noun: str) -> str:
    """Return 1 job, 2 jobs, 3 classes."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def evaluated(step: int, *, best: bool) -> str:
    """Return of which checkpoint an evaluation is."""
    return "the best checkpoint" if best else f"step {step}, not the best checkpoint of now"


def nobody(workers: "Collection[Worker]", silent: "Container[str]") -> str | None:
    """Return that no worker takes jobs now, None where one does; `silent` are the ids of those not heard of."""
    if not workers:
        return "no worker is running"
    if any(worker.id not in silent for worker in workers):
        return None
    return f"no worker has been heard of for {duration(min(worker.silence for worker in workers))}"


def place(ahead: int) -> str:
    """Return where a queued job stands."""
    return "next in line" if ahead == 0 else f"{plural(ahead, 'job')} ahead"


def unfit(reasons: "Mapping[str, str]") -> "Iterator[str]":
    """Yield that no worker can ever run a job, where that is so; `reasons` by the workers' ids."""
    if reasons:
        told = ", ".join(f"{worker} {why}" for worker, why in list(reasons.items())[:_SHOWN])
        more = f", and so on of {len(reasons)} workers" if len(reasons) > _SHOWN else ""
        yield f"No worker that runs now can ever run it: {told}{more}. The job waits for one that can."


def progress(job: "Job") -> str:
    """Return how far the present stage is, nothing where there is nothing to say."""
    done = job.progress
    if job.state is not JobState.RUNNING or not (done.total or done.done):
        return ""
    parts = [f"epoch {done.epoch}/{done.epochs}"] if done.epoch is not None and job.stage is Stage.TRAIN else []
    if done.total:
        parts.append(f"{100 * done.done // done.total} %")
    elif done.unit == "bytes":
        parts.append(size(done.done))
    else:
        parts.append(f"{done.done} {done.unit}")
    return ", ".join(parts)


#: From this share of the time on, waiting for data is worth a word.
STARVING = 0.25


def usage(epochs: "Sequence[EpochMetric]") -> str:
    """Return what the last epoch took of its host; nothing where it is not known."""
    last = next((row for row in reversed(epochs) if row.usage is not None), None)
    if last is None or last.usage is None:
        return ""
    used, speed = last.usage, last.images / last.seconds if last.seconds else 0.0
    said = [f"{used.cores:.1f} cores", size(used.memory), f"{_speed(speed)} images/s"]
    if used.gpu is not None:
        said.append(f"GPU {percent(used.gpu)}{f', {size(used.gpu_memory)}' if used.gpu_memory else ''}")
    said.append(f"{percent(used.waiting)} of the time waiting for data")
    starves = ": the loader starves it" if used.waiting >= STARVING else ""
    return ", ".join(said) + starves


#: From this many images a second on, digits behind the point say nothing.
_WHOLE = 100


def rate(job: "Job") -> str:
    """Return how fast the present stage goes."""
    if not job.progress.rate:
        return ""
    if job.progress.unit == "bytes":
        return f"{size(int(job.progress.rate))}/s"
    return f"{_speed(job.progress.rate)} images/s"


def _speed(rate: float) -> str:
    return f"{rate:{'.3g' if rate < _WHOLE else ',.0f'}}"
