"""`orch verify-resume`: what it asks, what it says, and its exit code; `test_replay.py` of the training replays."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from orchestrator import config
from orchestrator.core import jobs
from orchestrator.service import asking
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from worker import protocol

SAME: dict[str, Any] = {"first_step": 2, "last_step": 4, "losses": 2, "loss": None, "tensors": [], "elsewhere": []}
OTHER = SAME | {
    "loss": {"step": 3, "recorded": 0.5, "replayed": 0.25},
    "tensors": ["model.a", "model.b"],
    "elsewhere": ["threads: 1, before 2"],
}


class Asked:
    """Stands for the process: keeps what it is asked, and gives the answer that a test has put in."""

    def __init__(self) -> None:
        self.request: Mapping[str, Any] = {}
        self.answer: dict[str, Any] = SAME

    def ask(self, _settings: config.Settings, module: str, request: Mapping[str, Any]) -> Iterator[asking.Answer]:
        assert module == "worker.training.replay"
        self.request = json.loads(json.dumps(request))
        yield {"progress": {"done": 1, "total": 2, "unit": "steps"}}
        yield {"compared": self.answer}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stand_in = Asked()
    monkeypatch.setattr(asking, "ask", stand_in.ask)
    return stand_in


@pytest.fixture
def held(store: sql.SqlStore, settings: config.Settings) -> jobs.Claim:
    """A training with two checkpoints on this host."""
    held = parts.training(store)
    store.record_environment(held, parts.ENVIRONMENT)
    store.record_steps(held, parts.losses(1, 4))
    for step in (2, 4):
        point = parts.checkpoint(held, step)
        path = settings.artifact_dir / point.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        store.record_checkpoint(held, point)
    return held


def test_equal_bits_are_code_0(orch: Orch, held: jobs.Claim, asked: Asked) -> None:
    ran = orch("verify-resume", held.id)
    assert ran.code == 0
    assert ran.rows == [
        ["verdict", "bit-equal"],
        ["steps", "3", "4"],
        ["losses", "equal", "2"],
        ["checkpoint", "equal"],
    ]
    request = asked.request
    assert protocol.Assignment.model_validate(request["assignment"]).devices == (protocol.CPU,)
    assert (request["assignment"]["checkpoints"][0]["step"], request["until"]["step"]) == (2, 4)
    assert (request["assignment"]["threads"], request["ran_on"]["threads"]) == (2, 2)
    assert (request["last_step"], request["losses"]) == (4, {"3": 0.5, "4": 0.5})


def test_others_are_code_1_and_said(orch: Orch, held: jobs.Claim, asked: Asked) -> None:
    asked.answer = OTHER
    ran = orch("verify-resume", held.id)
    assert ran.code == 1
    assert ["losses", "different", "2", "3", "0.5", "0.25"] in ran.rows
    assert ["checkpoint", "different", "model.a", "model.b"] in ran.rows
    assert "threads: 1, before 2" in ran.err
    told = json.loads(orch("verify-resume", held.id, "--json").out)
    assert (told["equal"], told["loss"]["step"], told["differing"]) == (False, 3, ["model.a", "model.b"])


def test_nothing_of_the_job_changes(orch: Orch, held: jobs.Claim, asked: Asked, store: sql.SqlStore) -> None:
    del asked
    before = store.history(held.id)
    orch("verify-resume", held.id, "--from-start", "--steps", "1")
    assert store.history(held.id) == before


def test_a_job_without_anything_to_compare_is_code_3(orch: Orch, store: sql.SqlStore) -> None:
    ran = orch("verify-resume", parts.submit(store).id)
    assert ran.code == 3
    assert "Nothing of job" in ran.err


def test_a_gpu_s_bits_are_not_promised(orch: Orch, store: sql.SqlStore) -> None:
    held = parts.training(store)
    used = {**vars(parts.ENVIRONMENT), "device": "A100"}
    store.record_environment(held, type(parts.ENVIRONMENT)(**used))
    ran = orch("verify-resume", held.id)
    assert ran.code == 1
    assert "It trained on A100" in ran.err
