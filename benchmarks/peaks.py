"""What the process of a training on the CPU has in memory at its peak, and what orch foresees.

python -m benchmarks.peaks NETWORK SIZE BATCH [--memory lean] [--precision bf16] [--train head] prints both, for the
table in tests/unit/orchestrator/core/test_memory.py. The process comes from a fork server, as a node's do, and trains
on pictures of noise: two steps, a batch of validation, a checkpoint.
"""

import argparse
import resource
import select
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import safetensors.torch

from benchmarks import measure, place
from orchestrator.core import memory, specs
from worker import children, launcher, protocol
from worker.models import zoo
from worker.training import stage

_PEAK = "peak"


def peak(spec: specs.JobSpec, *, threads: int = 2) -> int:
    """Return the bytes of memory that the process had at its peak; raises RuntimeError where the training fails."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
        folder = Path(scratch)
        data = place.sample(folder / "data", train=2 * spec.batch_size, val=spec.batch_size, side=spec.image_size)
        more: dict[str, Any] = {"data": str(data), "epochs": 1, "loader_workers": 0}
        if spec.weights is not None:
            more["weights"] = str(folder / "weights.safetensors")
            safetensors.torch.save_file(zoo.build(spec, 2).state_dict(), more["weights"])
        told = protocol.Assignment(
            attempt=1,
            spec=spec.model_copy(update=more),
            data_hash=None,
            checkpoints=(),
            artifact_root=scratch,
            attempt_dir=scratch,
            data_dir=str(folder / "cache"),
            devices=(protocol.CPU,),
            threads=threads,
        )
        command = [sys.executable, "-m", "worker.forkserver", "--socket", str(folder / "s")]
        env = place.clean_environment(**children.FORK_SERVER_ENVIRONMENT)
        with subprocess.Popen(command, cwd=place.ROOT, env=env, stdin=subprocess.PIPE) as server:
            try:
                return _of(told, launcher.Launcher(folder / "s"), folder / "log")
            finally:
                server.terminate()


def _of(told: protocol.Assignment, starting: launcher.Launcher, log: Path) -> int:
    with starting.start("benchmarks.peaks:train", told, log=log) as process:
        select.select([process.ending], [], [])
        process.collect()
        if process.exit_code != 0:
            raise RuntimeError(log.read_text(encoding="utf-8"))
    return int((log.parent / _PEAK).read_text(encoding="ascii"))


def train(assignment: protocol.Assignment, connection: Connection) -> int:
    """Train as any process does, and write down the most bytes of memory that this one has had: it alone knows."""
    code = stage.main_train(assignment, connection)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (Path(assignment.attempt_dir) / _PEAK).write_text(str(kilobytes * 1024), encoding="ascii")
    return code


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peaks")
    parser.add_argument("network")
    parser.add_argument("size", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--memory", default="plain")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--train", default="all")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    fields = {"network": given.network, "image_size": given.size, "batch_size": given.batch}
    fields |= {name: getattr(given, name) for name in ("memory", "precision", "train", "compile")}
    spec = specs.parse(fields if given.train == "all" else fields | {"weights": "/drawn.safetensors"})
    taken, foreseen = peak(spec), memory.peak(spec, mode=spec.memory)
    print(f"{measure.mebibytes(taken)}, foreseen {measure.mebibytes(foreseen)}: {foreseen / taken:.2f} times that")


if __name__ == "__main__":
    main()
