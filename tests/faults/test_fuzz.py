"""Two thousand random archives, URLs and job files; `make soak` makes a hundred thousand."""

import random

import pytest

from tests.faults import fuzz
from worker.data import urls, zipcheck


@pytest.mark.timeout(300)
def test_nothing_but_errors_of_our_own_comes_out() -> None:
    seed = random.randrange(2**32)  # noqa: S311 - by pytest's own seed, which its first lines name
    tally = fuzz.run(iter(range(2000)), seed=seed)
    assert tally.failures == []
    assert all(tally.taken[target.__name__] and tally.refused[target.__name__] for target in fuzz.TARGETS)


def test_a_hole_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "is_public", lambda _address: True)
    assert any("connected to" in failure for failure in fuzz.run(iter(range(1, 600, 3)), seed=1).failures)
    monkeypatch.setattr(zipcheck, "_check_name", lambda *_: None)
    assert fuzz.run(iter(range(0, 3000, 3)), seed=1).failures
