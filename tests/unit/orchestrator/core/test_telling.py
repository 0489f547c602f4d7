from datetime import timedelta

import pytest

from orchestrator import errors
from orchestrator.core import telling
from orchestrator.core.states import JobState, Reason
from orchestrator.core.telling import Occasion

#: What is wanted, into which state a job has moved and why, and as what it is told.
RULES = [
    (set(Occasion), JobState.SUCCEEDED, None, Occasion.FINISHED),
    (set(Occasion), JobState.CANCELLED, None, Occasion.CANCELLED),
    (set(Occasion), JobState.FAILED, Reason.OOM, Occasion.FAILED),
    (set(Occasion), JobState.FAILED, Reason.DIVERGED, Occasion.DIVERGED),  # the narrower word, and once
    ({Occasion.FAILED}, JobState.FAILED, Reason.DIVERGED, Occasion.FAILED),  # it has failed all the same
    (set(Occasion), JobState.QUEUED, Reason.STALLED, Occasion.STALLED),  # it is tried again, and yet told
    ({Occasion.FAILED}, JobState.QUEUED, Reason.STALLED, None),
    (set(Occasion), JobState.QUEUED, Reason.LOST, None),  # the queue's own affair
    (set(Occasion), JobState.QUEUED, None, None),
    ({Occasion.FAILED}, JobState.SUCCEEDED, None, None),
]


@pytest.mark.parametrize(("wanted", "state", "reason", "told"), RULES)
def test_what_is_told(wanted: set[Occasion], state: JobState, reason: Reason | None, told: Occasion | None) -> None:
    assert telling.occasion(wanted, state=state, reason=reason) is told


def test_pauses_grow_up_to_an_hour() -> None:
    pauses = [telling.pause(tries) for tries in range(1, telling.TRIES + 1)]
    assert [pause.total_seconds() for pause in pauses] == [5, 20, 80, 320, 1280, 3600, 3600, 3600]
    assert sum(pauses[:-1], timedelta()) < timedelta(hours=3)


@pytest.mark.parametrize(
    "target",
    [
        "ftp:host",
        "hook",
        "https://",
        "https://host:0/",
        "https://a b/",
        "",
        "slack://\udcff",
        f"https://host/{2000 * 'x'}",
    ],
)
def test_a_target_that_cannot_be_told_is_refused_without_its_secrets(target: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="cannot be told"):
        telling.Telling(targets=(target,))


def test_targets_are_webhooks_and_services() -> None:
    assert telling.Telling(targets=("https://host/x", "slack://a/b/c")).on == frozenset(Occasion)
    with pytest.raises(errors.InvalidSpec, match="10 are the most"):
        telling.Telling(targets=("https://host/x",) * 11)


def test_occasions_are_read_from_texts() -> None:
    assert telling.occasions(["failed, stalled", "finished"]) == {
        Occasion.FAILED,
        Occasion.STALLED,
        Occasion.FINISHED,
    }
    with pytest.raises(errors.InvalidSpec, match="no occasion"):
        telling.occasions(["ended"])


def test_it_is_said_in_words() -> None:
    def said(occasion: Occasion, error: str | None = None) -> str:
        return telling.sentence("Job x", occasion, accuracy=0.981, reason=Reason.OOM, error=error)

    assert said(Occasion.FINISHED) == "Job x has succeeded, its best accuracy 98.1%."
    assert said(Occasion.FAILED, "No memory.") == "Job x has failed (oom): No memory."
    assert said(Occasion.STALLED) == "Job x has stalled."
