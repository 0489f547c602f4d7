"""`python -m worker.training spec.toml --out DIR`: the same engine without queue and database."""

import argparse
import os
import sys
import threading
import tomllib
from pathlib import Path

from pydantic import BaseModel

from orchestrator import config, errors
from orchestrator.core import specs
from worker import protocol
from worker.training import stage


class Printer:
    """The following end of the work: prints epochs and notes, and never stops it."""

    def __init__(self) -> None:
        self.stop_requested = threading.Event()

    def send(self, message: BaseModel) -> None:
        """Print what people want to know of a message."""
        if isinstance(message, protocol.CheckpointWritten):
            for row in message.metrics:
                _say(
                    f"epoch {row.epoch:3} {row.split:5} loss {row.loss:.4f} accuracy {row.accuracy:.4f} "
                    f"{row.seconds:.1f} s {row.images / row.seconds:.1f} images/s"
                )
        elif isinstance(message, protocol.Note):
            _say(f"{message.kind}: {message.detail}")


def main() -> int:
    """Train by a job file; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker.training", description="Train a DenseNet by a job file.")
    parser.add_argument("spec", type=Path, help="job file in TOML")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, new or empty")
    arguments = parser.parse_args()
    try:
        stage.with_data(stage.train, assignment(arguments.spec, arguments.out), Printer())
    except errors.OrchError as error:
        for line in filter(None, (error.message, error.why, error.hint)):
            sys.stderr.write(line + "\n")
        return error.exit_code
    return 0


def assignment(job_file: Path, out: Path) -> protocol.Assignment:
    """Return what a worker would be told to do with the job file, on the CPU.

    Raises:
        UsageError: the file is no job, or `out` holds something.

    """
    try:
        spec = specs.parse(tomllib.loads(job_file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise errors.UsageError(f"{job_file} cannot be read.", why=str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise errors.UsageError(f"{out} is not empty.", hint="Name a new folder.")
    settings = config.load()
    return protocol.Assignment(
        attempt=1,
        spec=spec,
        data_hash=None,
        checkpoints=(),
        artifact_root=str(out.absolute()),
        attempt_dir=str(out.absolute()),
        data_dir=str(settings.data_dir),
        devices=(protocol.CPU,),
        threads=settings.threads or len(os.sched_getaffinity(0)),
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
