"""Words that nobody knows: what was meant."""

import difflib
from collections.abc import Mapping


def nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    """Return `: did you mean 'x'?` for the known word closest to `word`, or the list where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}"
