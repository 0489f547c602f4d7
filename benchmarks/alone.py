"""The engine alone: `python -m benchmarks.alone RECIPE FOLDER` trains a recipe, in JSON, without queue and database.

Prints the CPU seconds that it has taken at the end of each epoch, as a JSON list.
"""

import json
import sys
from pathlib import Path
from typing import Any

import psutil

from benchmarks import measure
from worker import protocol
from worker.training import __main__ as command
from worker.training import stage


class Clock(command.Printer):
    """Notes the time of each epoch's checkpoint, and prints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def send(self, message: Any) -> None:
        """Take a message."""
        if isinstance(message, protocol.CheckpointWritten) and message.metrics:
            self.seconds.append(measure.cpu(psutil.Process()))


def main(recipe: dict[str, Any], folder: Path) -> None:
    """Train."""
    clock = Clock()
    job_file = folder / "job.toml"
    job_file.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in recipe.items()), encoding="utf-8")
    stage.with_data(stage.train, command.assignment(job_file, folder / "out"), clock)
    print(json.dumps(clock.seconds))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
