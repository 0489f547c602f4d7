"""How long jobs lie idle when their whole node dies: kill all of it, again and again, while another one stands by.

python -m tests.faults.recovery [--kills 5]      at the default lease, beats and sweeps; with --fast at the tests'
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from orchestrator import config
from orchestrator.core import specs
from tests.faults.soak import report
from tests.support import oracle, pictures, running
from tests.support.waiting import until

_SLOTS = 3  #: as many jobs, all on one node: each kill is measured so often
_DEFAULTS = {name: config.Settings.model_fields[name].default for name in ("heartbeat", "lease", "sweep")}


def measure(installed: running.Installation, spec: specs.JobSpec, *, kills: int) -> list[float]:
    """Return the seconds from each kill of a node to each of its jobs' next claims."""
    store = installed.store
    chosen = [installed.submit(spec) for _ in range(_SLOTS)]
    holder = installed.start_node()
    seconds: list[float] = []
    for _ in range(kills):
        until(lambda: all(_trains(installed, job.id) for job in chosen), seconds=300, every=0.2)
        stand_by = installed.start_node()
        until(lambda: _ready(installed, stand_by), seconds=120, every=0.2)  # noqa: B023 - called at once
        before = {job.id: store.get(job.id).attempt for job in chosen}
        node = psutil.Process(holder.pid)
        for process in (node, *node.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it went with the node
                process.kill()
        holder.wait()
        killed_at = time.time()
        until(lambda: _all_train(installed, before), seconds=300, every=0.1)  # noqa: B023 - called at once
        for job_id, number in before.items():
            seconds.append(store.attempts(job_id)[number].started_at.timestamp() - killed_at)
            sys.stdout.write(f"{job_id} {seconds[-1]:.1f} s\n")
            sys.stdout.flush()
        holder = stand_by
    for job in chosen:
        store.cancel(job.id, actor="recovery")
    installed.start_node()  # it clears away what the last dead one left
    until(lambda: sum(worker.state == "active" for worker in store.workers()) > 1, seconds=120, every=0.2)
    oracle.holds(installed, promised=[job.id for job in chosen])
    return seconds


def _all_train(installed: running.Installation, after: dict[str, int]) -> bool:
    """Whether each job trains in an attempt after the number given."""
    return all(_trains(installed, job_id, after=number) for job_id, number in after.items())


def _ready(installed: running.Installation, node: "subprocess.Popen[bytes]") -> bool:
    """Whether the node's fork server has imported all and listens."""
    return any(installed.settings.run_dir.glob(f"fork-{node.pid}-*.sock"))


def _trains(installed: running.Installation, job_id: str, *, after: int = 0) -> bool:
    """Whether the job trains, in an attempt after that one, and has come further: a job that has not waits longer."""
    last = installed.store.attempts(job_id)[-1:]
    newest = installed.store.checkpoints(job_id)[:1]
    return any(row.ended_at is None and row.attempt > after for row in last) and any(
        checkpoint.attempt == last[0].attempt for checkpoint in newest
    )


def main() -> int:
    """Measure, and print the percentiles."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.recovery")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="at the lease, beats and sweeps of the tests")
    given = parser.parse_args()
    times = {} if given.fast else _DEFAULTS
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        data = pictures.write(Path(folder), pictures.members(size=(16, 16)))
        spec = specs.JobSpec(
            data=str(data),
            network="densenet_tiny",
            image_size=8,
            epochs=100_000,
            checkpoint_steps=20,
            loader_workers=0,
        )
        with running.installation(Path(folder) / "home", slots_per_device=_SLOTS, **times) as installed:
            seconds = measure(installed, spec, kills=given.kills)
    sys.stdout.write(f"from the death of a node to the next claim, seconds: {report.percentiles(seconds)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
