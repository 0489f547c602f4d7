"""How far things are is said twice a second, at the end of each part of the work, and again while that takes long."""

from pathlib import Path

import pytest

from worker import protocol
from worker.data import once


def test_a_new_part_of_the_work_is_counted_anew_and_an_end_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_REPORT_EVERY", 3600.0)
    said: list[protocol.Progress] = []
    reporter = once.Reporter(said.append, tmp_path / "progress")
    for done, total in ((100, None), (110, None), (10, 50), (50, 50), (50, 50)):
        reporter(done, total, "bytes")
    assert [(one.done, one.total) for one in said] == [(100, None), (10, 50), (50, 50)]
    assert said[1].rate is None  # and no less than nothing
    monkeypatch.setattr(once, "_REPORT_EVERY", 0.0)
    again = once.Reporter(said.append, tmp_path / "progress")
    for _ in range(3):
        again(50, 50, "bytes")
    assert len(said) == 3 + 3
