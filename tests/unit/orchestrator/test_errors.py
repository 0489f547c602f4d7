import re
from collections.abc import Iterator

import pytest

from orchestrator import errors


def tree(kind: type[errors.OrchError], depth: int = 0) -> Iterator[tuple[int, str, int]]:
    """Yield (depth, name, exit code) of an error and of those below it."""
    yield depth, kind.__name__, kind.exit_code
    for child in kind.__subclasses__():
        yield from tree(child, depth + 1)


def drawn() -> list[tuple[int, str, int]]:
    """Return the tree as the module's docstring draws it."""
    lines = re.findall(r"^    ([│├└─ ]*)(\w+) +(\d)\b", errors.__doc__ or "", re.MULTILINE)
    return [(len(branch) // 4, name, int(code)) for branch, name, code in lines]


def test_the_tree_is_as_it_is_drawn() -> None:
    # Only what this module defines: a test may have made errors of its own.
    ours = [(depth, name, code) for depth, name, code in tree(errors.OrchError) if hasattr(errors, name)]
    assert sorted(drawn()) == sorted(ours)


@pytest.mark.parametrize("kind", [errors.OrchError, errors.DatabaseUnavailable, errors.Stale])
def test_an_error_without_words_says_what_its_class_says(kind: type[errors.OrchError]) -> None:
    said = kind().message
    assert said == str(kind())
    assert said.endswith(".")
    assert kind("Other words.").message == "Other words."


def test_an_ambiguous_text_names_its_candidates() -> None:
    ambiguous = errors.Ambiguous("Several.", candidates=("abc00001", "abc00002"))
    assert ambiguous.why == "It matches abc00001, abc00002."
    assert ambiguous.exit_code == 3
