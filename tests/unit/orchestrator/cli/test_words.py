"""How values are said to people."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.cli import words
from orchestrator.core import jobs, states
from orchestrator.store import base
from tests.contract import parts


@pytest.mark.parametrize(
    ("count", "noun", "said"), [(1, "class", "1 class"), (2, "class", "2 classes"), (0, "job", "0 jobs")]
)
def test_counts_have_their_plural(count: int, noun: str, said: str) -> None:
    assert words.plural(count, noun) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0, "0 s"),
        (0.25, "0.25 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations_have_the_two_units_that_matter(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


def test_a_clock_that_is_ahead_does_not_make_the_future() -> None:
    now = datetime.now(UTC)
    assert words.ago(now + timedelta(seconds=5), now) == "now"
    assert words.ago(now - timedelta(minutes=119), now) == "1 h ago"


def test_small_things() -> None:
    assert words.percent(0.6543) == "65.4 %"
    assert words.size(1536) == "1.5 KiB"
    assert words.place(0) == "next in line"
    assert words.place(1) == "1 job ahead"
    assert words.place(2) == "2 jobs ahead"


def test_what_an_epoch_took_is_one_line_with_a_word_where_the_loader_starves() -> None:
    val, train = parts.epoch_rows(1)
    used = jobs.Usage(cores=1.84, memory=3 * 2**29, waiting=0.1)
    assert words.usage([train, val]) == ""
    said = "1.8 cores, 1.5 GiB, 6.67 images/s, 10.0 % of the time waiting for data"
    assert words.usage([replace(train, usage=used), val]) == said
    starved = replace(used, waiting=0.5, gpu=0.4, gpu_memory=2**30)
    assert words.usage([replace(train, usage=used), replace(train, usage=starved)]) == (
        "1.8 cores, 1.5 GiB, 6.67 images/s, GPU 40.0 %, 1.0 GiB, "
        "50.0 % of the time waiting for data: the loader starves it"
    )


@pytest.mark.parametrize(
    ("stage", "unit", "said"),
    [
        (states.Stage.DOWNLOAD, "bytes", "2.0 KiB/s"),
        (states.Stage.DOWNLOAD, "images", "2,048 images/s"),  # they are decoded once when they come
        (states.Stage.TRAIN, "bytes", "2.0 KiB/s"),  # this host lacked the data
        (states.Stage.TRAIN, "steps", "2,048 images/s"),
    ],
)
def test_speed_is_said_in_the_unit_that_it_was_reported_in(
    stage: states.Stage, unit: str, said: str, store: base.Store
) -> None:
    progress = jobs.Progress(done=1, unit=unit, rate=2048)
    assert words.rate(replace(parts.submit(store), stage=stage, progress=progress)) == said
