"""Which devices the attempts that run on this host hold, as the kernel knows it: a lock each that a process holds."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator import config, processes
from orchestrator.core import layout, states
from orchestrator.core.findings import Finding, Kind
from orchestrator.core.history import History
from orchestrator.service import leftovers


def check(settings: config.Settings, running: Iterable[History]) -> Iterator[Finding]:
    """Yield jobs that hold more or fewer devices than they train on, and devices that two jobs hold."""
    holders: dict[Path, History] = {}
    for history in running:
        job = history.job
        held = None if job.stage is states.Stage.DOWNLOAD else _held(settings, history)
        if held is None:
            continue
        wanted, given = job.demand.at(job.stage).gpus, sum(lock.name.endswith(layout.DEVICE) for lock in held)
        if given != wanted:
            yield history.finding(
                Kind.DEVICE, f"attempt {job.attempt} holds {given} devices, and its stage takes {wanted}"
            )
        for lock in sorted(held):
            other = holders.setdefault(lock, history).job
            if other.id != job.id:
                yield history.finding(
                    Kind.DEVICE,
                    f"attempt {job.attempt} holds {lock.stem}, which attempt {other.attempt} of {other.id} holds",
                )


def _held(settings: config.Settings, history: History) -> set[Path] | None:
    """Return the locks that the process of a running attempt holds; None where no such process is here."""
    folder = layout.attempt(settings.artifact_dir, history.job.id, history.job.attempt)
    pid = leftovers.process_in(folder)
    if pid is None:
        return None
    try:
        opened = processes.opened(pid)
    except OSError:  # it is another user's
        return None
    if leftovers.process_in(folder) != pid:  # it has ended meanwhile, and held ever less
        return None
    lock_dir = settings.lock_dir.resolve()
    return {path for path in opened if path.name.endswith(layout.DEVICE) or path.parent == lock_dir}
