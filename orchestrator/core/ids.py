"""Job ids: eight random characters of Crockford's base 32, easy to read out and to type."""

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # https://www.crockford.com/base32.html: no i, l, o, u
LENGTH = 8
SHORTEST_PREFIX = 3

_LOOKALIKES = str.maketrans({"i": "1", "l": "1", "o": "0"})


def new_id() -> str:
    """Return a fresh id: 40 random bits; the store's unique key has the last word."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def normalise(text: str) -> str:
    """Return `text` as an id would be written: lower case, look-alikes folded."""
    return text.strip().lower().translate(_LOOKALIKES)


def is_prefix(text: str) -> bool:
    """Whether normalised `text` could be an id or a prefix of one that is long enough to look up."""
    return SHORTEST_PREFIX <= len(text) <= LENGTH and all(character in ALPHABET for character in text)


def is_too_short(text: str) -> bool:
    """Whether a text could begin an id, but is too short to look up."""
    return 0 < len(text) < SHORTEST_PREFIX and all(character in ALPHABET for character in normalise(text))
