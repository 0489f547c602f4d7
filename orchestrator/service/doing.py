"""How far long work is, as services yield or tell it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Doing:
    """How far the work is."""

    done: int
    total: int | None  #: None: nobody knows
    unit: str  #: bytes, images or steps
