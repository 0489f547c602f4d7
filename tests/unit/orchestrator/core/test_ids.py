import re

import pytest

from orchestrator.core import ids


def test_fresh_ids_are_eight_characters_of_the_alphabet() -> None:
    fresh = {ids.new_id() for _ in range(500)}
    assert len(fresh) == 500
    assert all(re.fullmatch(rf"[{ids.ALPHABET}]{{8}}", made) for made in fresh)


def test_alphabet_has_no_lookalikes() -> None:
    assert len(set(ids.ALPHABET)) == 32
    assert not set(ids.ALPHABET) & set("ilou")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("abc12345", "abc12345"),
        (" ABC12345\n", "abc12345"),
        ("oil", "011"),  # what people read off paper
        ("O0Ll1I", "001111"),
    ],
)
def test_typed_ids_are_normalised(typed: str, meant: str) -> None:
    assert ids.normalise(typed) == meant


@pytest.mark.parametrize(
    ("text", "could_be"),
    [
        ("abc", True),
        ("abcdefgh", True),
        ("ab", False),  # too short to mean one job
        ("abcdefgh0", False),  # longer than an id
        ("ab-", False),
        ("abu", False),  # u is in no id
        ("", False),
    ],
)
def test_what_could_be_a_prefix(text: str, *, could_be: bool) -> None:
    assert ids.is_prefix(text) is could_be
