"""Files that a person asked for are whole under their names, or not there at all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.service import drafts


def _fail(error: Exception, *steps: Callable[[], object]) -> None:
    for step in steps:
        step()
    raise error


def test_files_get_their_names_at_the_end_and_replace_what_is_there(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "a.json"
    first.write_text("old")
    with drafts.drafts(first, second) as made:
        for draft in made:
            draft.write_text("new")
        assert [draft.suffix for draft in made] == [".txt", ".json"]
        assert (first.read_text(), second.exists()) == ("old", False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "new", "a.json": "new"}


def test_the_longest_name_has_a_draft(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.png"
    with drafts.drafts(path) as (draft,):
        draft.touch()
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    kept = tmp_path / "a.txt"
    kept.write_text("old")
    full = OSError(28, "No space left on device")
    with pytest.raises(errors.OrchError, match=r"a\.txt cannot be written"), drafts.drafts(kept) as (draft,):
        _fail(full, lambda: draft.write_text("half"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


def test_a_draft_that_cannot_be_removed_hides_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ZeroDivisionError), drafts.drafts(folder / "a.txt"):
        # With a file in the folder's place, what lies below it cannot even be looked at.
        _fail(ZeroDivisionError(), folder.rmdir, folder.touch)
