"""How long a node may drain: ORCH_DRAIN, or what `orch down --timeout` has left for it in the run folder.

The signal that makes it drain carries no number. Its slots, which end what does not stop in time, look here as well.
"""

import contextlib
from pathlib import Path

from orchestrator import config, errors, failpoints


def path(settings: config.Settings) -> Path:
    """Return the file that says it to the node of this home, which removes it when it comes and when it goes."""
    return settings.run_dir / "node.drain"


def tell(settings: config.Settings, *, node: int, seconds: float) -> None:
    """Leave for the node with this pid how many seconds it has; before the signal. Raises OrchError where it cannot."""
    beside = path(settings).with_suffix(".new")
    try:
        failpoints.reach("drain.write")
        beside.write_text(f"{node} {seconds!r}", encoding="ascii")
        beside.replace(path(settings))  # at once: who drains looks all the time
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise errors.OrchError(
            "The node cannot be told how long it may drain.",
            why=f"{error.strerror}: {path(settings)}",
            hint=f"`orch down` without --timeout gives it {settings.drain:g} seconds (ORCH_DRAIN).",
        ) from error


def seconds(settings: config.Settings, *, node: int) -> float:
    """Return how many seconds the node with this pid has."""
    try:
        failpoints.reach("drain.read")
        told, number = path(settings).read_text(encoding="ascii").split()
        return float(number) if int(told) == node else settings.drain
    except (OSError, ValueError):
        return settings.drain
