"""What a job waits for: the ends of other jobs. These are older than it, so that no two can wait for each other."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.states import After, Ended


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """A job that another one waits for."""

    needs: str  #: its id
    rule: After
    ended: Ended | None = None  #: how it has ended

    @property
    def met(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.ended is Ended.SUCCEEDED or (self.ended is not None and self.rule is After.ANY)

    @property
    def broken(self) -> bool:
        """Whether it has ended so that the one that waits cannot begin."""
        return self.ended is not None and not self.met


def broken(dependencies: Iterable[Dependency]) -> Dependency | None:
    """Return the first that is broken, None where all may still be met."""
    return next((one for one in dependencies if one.broken), None)


def met(dependencies: Iterable[Dependency]) -> bool:
    """Whether all are met."""
    return all(one.met for one in dependencies)
