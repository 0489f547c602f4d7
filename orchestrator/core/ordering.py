"""The order in which waiting jobs are claimed.

Users take turns: whoever runs least at a stage is next, then whoever has waited longest for a turn. Who holds no slot
is so served within as many claims as there are users. Each one's own jobs go by priority, which ages linearly: a job's
rank is its submit time less a fixed bonus for each point. All waiting jobs age alike, so that a rank changes only with
the priority: it can be stored and indexed, and no job is overtaken for ever.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

#: How much waiting one point of priority is worth.
PRIORITY_BONUS = timedelta(hours=1)

_NEVER = datetime.min.replace(tzinfo=UTC)


def rank(*, submitted_at: datetime, priority: int) -> float:
    """Return the rank in seconds among the jobs of one user: the lowest is claimed first, `seq` breaks ties."""
    return submitted_at.timestamp() - priority * PRIORITY_BONUS.total_seconds()


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A user with jobs that could be claimed now for a stage, as their first stands for them."""

    user: str
    running: int  #: jobs of theirs that run at this stage
    served_at: datetime | None  #: when one was last claimed for it
    rank: float  #: of the first
    seq: int  #: of the first
    waiting: int = 1  #: how many there are

    @property
    def turn(self) -> tuple[int, datetime, float, int]:
        """What contenders are compared by: the lowest is next."""
        return self.running, self.served_at or _NEVER, self.rank, self.seq


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a waiting job stands at its stage, at one moment."""

    before: dict[str, int]  #: how many jobs of each user are claimed first
    turns: tuple[Contender, ...]  #: all users with jobs that could be claimed, and its own, the next one first

    @property
    def ahead(self) -> int:
        """How many jobs are claimed first."""
        return sum(self.before.values())


#: That of a job that does not wait.
NOWHERE = Standing(before={}, turns=())


def in_turn(contenders: Iterable[Contender]) -> list[Contender]:
    """Return them in the order in which they are served."""
    return sorted(contenders, key=lambda contender: contender.turn)


def ahead(mine: Contender, others: Iterable[Contender], *, own: int) -> dict[str, int]:
    """Return how many jobs of each user are claimed before the one of `mine` that `own` others precede, if none ends.

    The user's turn for it comes at `mine.running + own` running jobs. Until then each other user is served up to that
    level, and once more at it where they are before `mine` wherever they meet: they began with more, or are next now.
    """
    level = mine.running + own
    counts = {other.user: min(other.waiting, level - other.running + _leads(other, mine)) for other in others}
    return {user: count for user, count in {mine.user: own, **counts}.items() if count > 0}


def standing(mine: Contender, others: Sequence[Contender], *, own: int) -> Standing:
    """Return how the job of `mine` stands that `own` of the same user precede."""
    return Standing(before=ahead(mine, others, own=own), turns=tuple(in_turn([mine, *others])))


def _leads(other: Contender, mine: Contender) -> bool:
    return other.running > mine.running or (other.running == mine.running and other.turn < mine.turn)
