"""Whether the node of this home lives, by the age of a file: what a container's health check asks."""

import sys
import time
from pathlib import Path

from orchestrator import config, failpoints

#: Beats that may be missed.
PATIENCE = 3


def touch(settings: config.Settings) -> None:
    """Say that the node lives."""
    failpoints.reach("health.touch")
    _file(settings).touch()


def main() -> int:
    """Return 0 where the node's file is young enough, else 1."""
    settings = config.load()
    try:
        age = abs(time.time() - _file(settings).stat().st_mtime)  # from before the clock was set back: none since
    except FileNotFoundError:
        return 1
    return int(age > PATIENCE * settings.heartbeat)


def _file(settings: config.Settings) -> Path:
    return settings.run_dir / "heartbeat"


if __name__ == "__main__":
    sys.exit(main())
