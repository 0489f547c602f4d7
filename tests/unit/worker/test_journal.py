"""A journal has one owner, from its first moment on: who finds one knows whether its writer lives."""

import fcntl
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker import journal, protocol

STEP = protocol.Steps(values=((1, "loss", 1.0),))


def test_a_journal_is_found_by_nobody_while_it_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever recovers journals would take one without a lock for a dead supervisor's."""
    file, found = tmp_path / journal.FILE, []
    flock = fcntl.flock

    def look_first(target: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        found.append(journal.Journal.left_behind(file))
        flock(target, how)

    monkeypatch.setattr(fcntl, "flock", look_first)
    with closing(journal.Journal(file)) as mine:
        mine.append(journal.Record(at=datetime.now(UTC), said=STEP))
        assert found == [None]
        assert journal.Journal.left_behind(file) is None
    left = journal.Journal.left_behind(file)
    assert left is not None
    left.close()


def test_a_journal_that_was_discarded_meanwhile_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finder would delete the next one of that name."""
    file = tmp_path / journal.FILE
    file.touch()
    flock = fcntl.flock

    def discard_first(target: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        file.unlink()
        with closing(journal.Journal(file)) as next_one:
            next_one.append(journal.Record(at=datetime.now(UTC), said=STEP))
        flock(target, how)

    monkeypatch.setattr(fcntl, "flock", discard_first)
    assert journal.Journal.left_behind(file) is None
    assert file.read_bytes()
