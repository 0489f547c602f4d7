"""`python -m worker.training spec.toml --out DIR`: the same engine without queue and database.

It reads the fields of a spec and nothing else: recipes, YAML and the keys that say how to queue a job are the matter of
services, which a worker never calls.
"""

import argparse
import functools
import os
import sys
import threading
import tomllib
from pathlib import Path

from pydantic import BaseModel

from orchestrator import config, errors
from orchestrator.core import specs
from worker import diary, protocol
from worker.training import ranks, stage

_HINT = "This takes a TOML file of spec fields, such as `epochs = 3`; `orch submit` takes whole job files."


class Printer:
    """The following end of the work: prints what happens, and never stops it."""

    def __init__(self) -> None:
        self.stop_requested = threading.Event()

    def send(self, message: BaseModel) -> None:
        """Print what people want to know of a message."""
        diary.write(message)


def main() -> int:
    """Train by a file of spec fields; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.training", description="Train a DenseNet by the fields of a spec."
    )
    parser.add_argument("spec", type=Path, help="TOML file of spec fields: no recipe, no key of the queue")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, new or empty")
    parser.add_argument("--ranks", type=int, help="processes that train it together; else its gpus")
    arguments = parser.parse_args()
    try:
        _train(assignment(arguments.spec, arguments.out, gpus=arguments.ranks))
    except errors.OrchError as error:
        for line in filter(None, (error.message, error.why, error.hint)):
            sys.stderr.write(line + "\n")
        return error.exit_code
    return 0


def _train(told: protocol.Assignment) -> None:
    team = ranks.started(told, functools.partial(stage.follow, told))
    work = functools.partial(stage.train, team=team)
    team.lead(lambda: stage.with_data(work, told, Printer()), say=lambda failed: _say(failed.error))


def assignment(job_file: Path, out: Path, *, gpus: int | None = None) -> protocol.Assignment:
    """Return what a worker would be told to do with the spec in a file, by so many processes on the CPU.

    Raises:
        UsageError: the file has no spec, or `out` holds something.

    """
    try:
        given = tomllib.loads(job_file.read_text(encoding="utf-8"))
        spec = specs.parse(given if gpus is None else given | {"gpus": gpus})
    except errors.InvalidSpec as error:
        raise errors.UsageError(error.message, why=error.why, hint=_HINT) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise errors.UsageError(f"{job_file} cannot be read.", why=str(error), hint=_HINT) from error
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
        devices=(protocol.CPU,) * spec.gpus,
        threads=settings.threads or max(1, len(os.sched_getaffinity(0)) // spec.gpus),
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
