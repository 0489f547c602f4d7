"""`orch top`: a frame on a terminal, lines in a pipe, one object in JSON."""

import io
import os
import pty
import sys
from typing import Any

import pytest
from rich.console import Console

from orchestrator import config
from orchestrator.cli import top as command
from orchestrator.core import jobs, specs, states
from orchestrator.service import queueviews, top
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of


@pytest.fixture
def running(store: base.Store, settings: config.Settings) -> jobs.Job:
    """A job that trains on one of the two slots of a worker, another that downloads, one that waits."""
    heard_of(settings, devices=("CPU", "CPU"))
    held = parts.training(store, spec=specs.parse({"data": "digits", "batch_size": 8}), name="cats")
    store.record_progress(held, jobs.Progress(done=3, total=4, epoch=2, epochs=5, rate=8.0))
    parts.submit(store)
    downloading = parts.claimed(store, states.Stage.DOWNLOAD)
    store.record_progress(downloading, jobs.Progress(done=3, total=4, unit="bytes", rate=1e6))
    parts.submit(store, name="waits")
    return store.get(held.id)


def test_a_pipe_gets_one_frame(orch: Orch, running: jobs.Job) -> None:
    rows = orch("top").rows
    assert rows[0] == ["slots", "1", "2", "8.0"]  # a download takes no slot, and its bytes are no images
    assert rows[1][:6] == ["worker", "worker-a", "active", "1", "2", "CPU,CPU"]
    trains = ["job", running.id, "training", "worker-a", "cats", "ada", "0.75", "8.0", "1.0"]
    assert trains in rows
    assert [row[2] for row in rows if row[0] == "job" and row != trains] == ["downloading"]


def test_one_object_in_json(orch: Orch, running: jobs.Job) -> None:
    found = queueviews.TopPayload.model_validate_json(orch("top", "--json").out)
    assert (found.busy, found.slots, found.rate, found.waiting) == (1, 2, 8.0, 1)
    assert running.id in {job.id for job in found.running}
    assert found.workers[0].busy == 1


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 50), (80, 6)])
def test_a_frame_fits_the_terminal(
    store: base.Store, settings: config.Settings, running: jobs.Job, width: int, height: int
) -> None:
    screen: Any = io.StringIO()
    found = top.top(settings, store)
    console = Console(file=screen, width=width, height=height, force_terminal=True, color_system=None)
    console.print(command.frame(found, settings, width=width, height=height))
    lines = screen.getvalue().splitlines()
    assert lines[0].startswith("1 of 2 slots busy, 8 images/s   2 running, 1 waiting")
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 8)
    assert any(running.id in line or "more" in line for line in lines)


@pytest.mark.parametrize(("pressed", "ends"), [(b"xq", True), (b"\x1b[AQ", True), (b"x", False)])
def test_a_q_ends_it_behind_any_other_key(monkeypatch: pytest.MonkeyPatch, pressed: bytes, ends: bool) -> None:
    keyboard, terminal = pty.openpty()
    try:
        with open(terminal, encoding="utf-8") as stdin:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdin", stdin)
            with command._keys() as heard:
                os.write(keyboard, pressed)
                assert heard(60 if ends else 0.2) is ends
    finally:
        os.close(keyboard)
