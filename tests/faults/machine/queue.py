"""Doorbells that may be lost or doubled, on a broker that may be away."""

from collections import Counter
from typing import Any

from orchestrator import errors
from orchestrator.core import states


class Queue:
    """What the store's side rings, and how often."""

    def __init__(self) -> None:
        self.lying: Counter[states.Stage] = Counter()
        self.away = False

    def ring(self, stage: states.Stage, times: int = 1) -> None:
        """Take doorbells in."""
        if self.away:
            raise errors.BrokerUnavailable
        self.lying[stage] += times

    def waiting(self, stages: Any) -> dict[states.Stage, int]:
        """Count them."""
        if self.away:
            raise errors.BrokerUnavailable
        return {stage: self.lying[stage] for stage in stages}

    def takes(self, stage: states.Stage) -> bool:
        """Take one that lies there; whether one did."""
        if not self.lying[stage]:
            return False
        self.lying[stage] -= 1
        return True

    def suffers(self, trouble: str, stage: states.Stage) -> None:
        """Double, make up or lose a doorbell, or all of them; let the broker go and come back."""
        match trouble:
            case "duplicate":
                self.lying[stage] += 1
            case "drop":
                self.lying[stage] = max(0, self.lying[stage] - 1)
            case "lose all":
                self.lying.clear()
            case _:
                self.away = trouble == "away"
