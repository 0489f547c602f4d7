"""What training a job again has come to, next to what it came to first. Pure rules."""

import math
from dataclasses import dataclass
from enum import StrEnum

#: A difference of two accuracies up to this is noise, however many pictures there are.
LEAST_TOLERANCE = 0.01


class Outcome(StrEnum):
    """The verdict."""

    IDENTICAL = "identical"  #: the same weights, to the last bit
    WITHIN_NOISE = "within-noise"  #: other weights, and an accuracy that differs no more than chance would have it
    DIFFERENT = "different"  #: another accuracy
    NOT_RUN = "not-run"  #: it did not come to a result, or with other data


#: Those that reproduce a result.
GOOD = frozenset({Outcome.IDENTICAL, Outcome.WITHIN_NOISE})


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training came to."""

    weights: dict[str, str]  #: sha256 by the role of the checkpoint: best, last
    accuracy: float  #: of the best one, on the validation split
    loss: float
    images: int  #: of that split


def tolerance(first: Result, again: Result) -> float:
    """Return how far two accuracies may be apart: two standard errors of their difference, and a point at least.

    Each is a share of `images` independent pictures: its variance is p (1 - p) / images.
    """
    variance = sum(one.accuracy * (1 - one.accuracy) / max(1, one.images) for one in (first, again))
    return max(LEAST_TOLERANCE, 2 * math.sqrt(variance))


def judge(first: Result, again: Result, *, within: float) -> Outcome:
    """Return the verdict; `within` is the largest difference of accuracies that is taken for noise."""
    if first.weights and first.weights == again.weights:
        return Outcome.IDENTICAL
    return Outcome.WITHIN_NOISE if abs(first.accuracy - again.accuracy) <= within else Outcome.DIFFERENT
