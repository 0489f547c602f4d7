"""What others have written (class names, logs, errors, hosts) steers no terminal, whichever command shows it."""

import json
import re

import pytest

from orchestrator import config
from orchestrator.cli import render
from orchestrator.core import jobs, specs, states
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of
from tests.integration.cli.test_terminal import Screen, screen

__all__ = ["screen"]

#: A window title, a cleared screen, a C1 sequence, a carriage return over the line, text that reads backwards.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\rcat\u202etac\u2066"

FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def job_id(store: base.Store, settings: config.Settings) -> str:
    """A job that has evil in every place that its data, its training and its worker can write."""
    claim = parts.training(store, spec=specs.parse({"data": "digits", "network": "densenet_tiny"}))
    dataset = jobs.Dataset(
        hash="d" * 64, source=EVIL, classes=(EVIL, "dog"), counts={"train": 4, "val": 2}, bytes=1, path=EVIL
    )
    store.record_dataset(claim, dataset)
    store.record_checkpoint(claim, parts.checkpoint(claim, 3, accuracy=0.5, epoch=1), parts.epoch_rows(1))
    store.record_log(claim, jobs.LogChunk(attempt=claim.attempt, sequence=0, text=f"{EVIL}\nepoch 1\n"))
    store.note(claim, kind="numerics_changed", detail=EVIL)
    store.finish(claim, parts.DONE)
    claim = parts.claimed(store, states.Stage.EVALUATE)
    store.record_evaluation(
        claim,
        jobs.Evaluation(
            attempt=claim.attempt,
            checkpoint_step=3,
            checkpoint_sha256=f"{3:064x}",
            loss=0.7,
            accuracy=0.5,
            images=2,
            classes=(EVIL, "dog"),
            precision=(1.0, 0.5),
            recall=(0.5, 1.0),
            confusion=((1, 0), (0, 1)),
            seconds=0.1,
        ),
    )
    store.finish(claim, jobs.Outcome(kind="failed", reason=states.Reason.BAD_INPUT, error=EVIL, hint=EVIL))
    heard_of(settings, identity=parts.identity(f"worker-{EVIL}", host=EVIL), devices=(EVIL,))
    return claim.id


LOOKS = (["status"], ["status", "JOB"], ["list"], ["logs", "JOB"], ["events", "JOB"], ["doctor"], ["wait", "JOB"])


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_nothing_steers_a_terminal_or_a_pipe(orch: Orch, screen: Screen, job_id: str, words: list[str]) -> None:
    line = [job_id if word == "JOB" else word for word in words]
    piped = orch(*line)
    assert not FORBIDDEN.search(piped.out + piped.err), piped
    shown = "\n".join(screen(*line, TERM="dumb", COLUMNS="300"))
    assert not FORBIDDEN.search(shown), shown
    if words != ["doctor"]:
        printed = orch(*line, "--json").out
        assert not FORBIDDEN.search(printed), printed


def test_json_still_means_the_same(orch: Orch, job_id: str) -> None:
    report = json.loads(orch("status", job_id, "--json").out)
    assert (report["job"]["error"], report["evaluation"]["classes"]) == (EVIL, [EVIL, "dog"])


def test_what_is_shown_of_it_is_its_text() -> None:
    assert render.clean(EVIL) == "31m\ncattac"
