"""What the walk walks: a place, what happens to those who come by there, on which database."""

import random
import re
from dataclasses import dataclass
from typing import Self

from orchestrator import failpoints
from orchestrator.store import sql as _sql  # noqa: F401 - its import enters the store's places

SQLITE, POSTGRESQL = "sqlite", "postgresql"

#: No place: the clock of the host, which jumps.
CLOCK = "clock"

#: Done at every place, in CI as well: to one who comes by, and to the next one, in a second home where none comes.
EVERYWHERE = "kill+enospc"
#: Done at every place in the long form; CI draws some.
SAMPLED = ("eio", "raise", "sleep 0.3")
#: Visits after the first at which the long form kills; by then there are checkpoints to go on from.
LATER = (2, 3, 5, 8)

#: Cases that CI draws of the rest, of later visits, and on PostgreSQL.
SAMPLE, SAMPLE_LATER, SAMPLE_POSTGRESQL = 3, 2, 2

#: Reached after an absence of the database: a kill and one more absence behind it would be three faults of one job.
_APART = "store.record_epoch."
#: What only the embedded database has.
_EMBEDDED = re.compile(r"(schema|home)\.")
_SPELT = re.compile(r"(?P<places>[a-z_.,]+):(?P<actions>[a-z0-9 .+]+)(@(?P<visit>\d+))?(/(?P<database>\w+))?")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case."""

    places: tuple[str, ...]
    actions: str  #: joined by +; done at each of the places
    visit: int = 1  #: which of those who come by is the first to be hit
    database: str = SQLITE

    def __str__(self) -> str:
        later = f"@{self.visit}" if self.visit > 1 else ""
        elsewhere = f"/{self.database}" if self.database != SQLITE else ""
        return f"{','.join(self.places)}:{self.actions}{later}{elsewhere}"

    @property
    def lines(self) -> list[str]:
        """What a place is armed with: an action for each who comes by."""
        return ["pass"] * (self.visit - 1) + self.actions.split("+")

    @classmethod
    def spelt(cls, text: str) -> Self:
        """Return the case that `str` has spelt."""
        found = _SPELT.fullmatch(text)
        if found is None or not set(places := tuple(found["places"].split(","))) <= failpoints.PLACES.keys():
            raise ValueError(f"{text!r} is no case: PLACE[,PLACE]:ACTION[+ACTION][@VISIT][/DATABASE]")
        return cls(
            places=places,
            actions=found["actions"],
            visit=int(found["visit"] or 1),
            database=found["database"] or SQLITE,
        )


def everywhere() -> list[Case]:
    """Return what CI does in full."""
    return [Case(places=(place,), actions=actions) for place in failpoints.PLACES for actions in _everywhere_at(place)]


def _everywhere_at(place: str) -> list[str]:
    return EVERYWHERE.split("+") if place.startswith(_APART) else [EVERYWHERE]


def rest() -> list[Case]:
    """Return every other way to fail at a first visit."""
    spoilt = Case(places=("train.loss",), actions="nan")
    return [spoilt, *(Case(places=(place,), actions=action) for place in failpoints.PLACES for action in SAMPLED)]


def later() -> list[Case]:
    """Return the kills at later visits."""
    return [Case(places=(place,), actions="kill", visit=visit) for place in failpoints.PLACES for visit in LATER]


def on_postgresql() -> list[Case]:
    """Return the same places with PostgreSQL below."""
    return [
        Case(places=(place,), actions=actions, database=POSTGRESQL)
        for place in failpoints.PLACES
        if not _EMBEDDED.match(place)
        for actions in (*_everywhere_at(place), *(SAMPLED if place.startswith("store.") else ()))
    ]


def sample(seed: int) -> list[Case]:
    """Return what CI draws of all that it does not do in full."""
    source = random.Random(seed)  # noqa: S311 - no secret
    drawn = [(rest(), SAMPLE), (later(), SAMPLE_LATER), (on_postgresql(), SAMPLE_POSTGRESQL)]
    return [case for cases, count in drawn for case in source.sample(cases, count)]


def everything() -> list[Case]:
    """Return the long form."""
    return everywhere() + rest() + later() + on_postgresql()
