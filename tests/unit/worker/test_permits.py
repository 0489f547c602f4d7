from pathlib import Path

from worker.permits import Permits


def test_no_more_jobs_are_taken_than_permitted(tmp_path: Path) -> None:
    permits = Permits.create(tmp_path / "tally", 2)
    assert [permits.take() for _ in range(3)] == [True, True, False]


def test_a_permit_given_back_can_be_taken_by_another_slot(tmp_path: Path) -> None:
    mine = Permits.create(tmp_path / "tally", 1)
    other = Permits(tmp_path / "tally")
    assert mine.take()
    assert not other.take()
    mine.give_back()
    assert other.take()


def test_permits_are_used_up_when_as_many_jobs_have_ended(tmp_path: Path) -> None:
    permits = Permits.create(tmp_path / "tally", 1)
    assert permits.take()
    assert not permits.used_up
    permits.end()
    assert permits.used_up


def test_without_a_limit_everything_is_permitted() -> None:
    permits = Permits(None)
    assert all(permits.take() for _ in range(100))
    permits.end()
    permits.give_back()
    assert not permits.used_up
