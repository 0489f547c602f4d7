"""Words that nobody knows: what was meant."""

import difflib
from collections.abc import Mapping


def nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    """Return `: did you mean 'x'?` for the known word closest to `word`, or the list where none is close."""
    meant = close(word, known)
    return f": did you mean {meant!r}?" if meant else f": known are {', '.join(known)}"


def close(word: str, known: Mapping[str, object] | list[str]) -> str | None:
    """Return the known word closest to `word`, None where none is close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)
