"""What people see: whole ids at 80 columns, words beside symbols, no colours where none are wanted."""

import io
import sys
from collections.abc import Callable, Sequence

import pytest
from rich.cells import cell_len

from orchestrator import config
from orchestrator.cli import main
from orchestrator.core import jobs, networks, specs, states
from orchestrator.service import recipes
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of

Screen = Callable[..., list[str]]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Run a command on a terminal without colours and return its lines, of both streams."""
    del orch  # it has set the home
    for name, value in {"TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, **env: str) -> list[str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            main.run(list(words))
        return terminal.getvalue().splitlines()

    return run


@pytest.fixture
def queue(store: base.Store, settings: config.Settings) -> list[jobs.Job]:
    """A running job and one that waits, with long names."""
    long = "a name that goes on and on, and would push every other column off the edge of the terminal"
    held = parts.training(store, spec=specs.parse({"data": "digits"}), name=long)
    store.record_progress(held, jobs.Progress(done=3, total=4, epoch=2, epochs=5, rate=8))
    waiting = parts.submit(store, name=long, tags=(long,))
    heard_of(settings)
    return [store.get(held.id), waiting]


def plain(lines: list[str]) -> str:
    """Return the text without the codes for bold."""
    return "\n".join(lines).replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")


@pytest.mark.parametrize("columns", ["80", "140"])
@pytest.mark.parametrize("command", ["status", "list"])
def test_rows_fit_the_terminal_and_ids_and_states_stay_whole(
    screen: Screen, queue: list[jobs.Job], command: str, columns: str
) -> None:
    text = plain(screen(command, COLUMNS=columns))
    rows = [line for line in text.splitlines() if not line.startswith("note:")]  # commands are left to the terminal
    assert max(cell_len(row) for row in rows) <= int(columns)
    assert f"{queue[0].id}  ● training" in text
    assert f"{queue[1].id}  ○ queued" in text
    assert "epoch 2/5, 75 %" in text


@pytest.mark.parametrize("columns", ["80", "140"])
@pytest.mark.parametrize(
    ("command", "names"), [("recipes", recipes.names()), ("models", list(networks.NETWORKS))], ids=["recipes", "models"]
)
def test_a_catalogue_fits_and_names_stay_whole(
    screen: Screen, command: str, names: Sequence[str], columns: str
) -> None:
    rows = plain(screen(command, COLUMNS=columns)).splitlines()
    assert max(map(cell_len, rows)) <= int(columns)
    assert set(names) <= {row.split()[0] for row in rows if row.strip()}


def test_no_color_leaves_no_colour(screen: Screen, queue: list[jobs.Job]) -> None:
    assert queue
    assert "\x1b[3" not in "\n".join(screen("status"))


def test_everything_about_a_job_fits_a_page(screen: Screen, queue: list[jobs.Job]) -> None:
    text = plain(screen("status", queue[0].id))
    assert "● training, epoch 2/5, 75 %" in text
    assert "about 0.50 s at 8 images/s" in text
    assert f"$ orch watch {queue[0].id}" in text
    assert "next in line" in plain(screen("status", queue[1].id))


def test_a_waiting_job_without_workers_says_what_is_missing(screen: Screen, store: base.Store) -> None:
    job = parts.submit(store)
    assert "no worker is running" in " ".join(plain(screen("status", job.id)).split())


@pytest.mark.parametrize(("answer", "gone"), [("y", True), ("n", False), ("", False)])
def test_delete_asks_on_a_terminal(
    screen: Screen, store: base.Store, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool
) -> None:
    job = parts.submit(store, name="mine")
    terminal = Terminal(f"{answer}\n")
    monkeypatch.setattr(sys, "stdin", terminal)
    text = plain(screen("delete", job.id))
    assert f"{job.id} (queued, mine)" in text
    assert "Delete 1 job for good?" in text
    assert (store.deleted([job.id]) == {job.id}) is gone
    assert ("deleted" in text.splitlines()[-1]) is gone


def test_a_pausing_job_says_so(screen: Screen, queue: list[jobs.Job], store: base.Store) -> None:
    store.pause(queue[0].id, actor="ada")
    store.pause(queue[1].id, actor="ada")
    text = plain(screen("list"))
    assert f"{queue[0].id}  ● pausing" in text
    assert f"{queue[1].id}  ◫ paused" in text
    assert f"$ orch resume {queue[1].id}" in plain(screen("status", queue[1].id))


def test_watch_draws_on_a_terminal_and_prints_lines_on_a_dumb_one(screen: Screen, store: base.Store) -> None:
    held = parts.training(store, spec=specs.parse({"data": "digits"}))
    store.record_steps(held, [jobs.StepMetric(step=step, name="loss", value=1 / step) for step in range(1, 50)])
    for epoch in (1, 2):
        store.record_checkpoint(held, parts.checkpoint(held, 10 * epoch, epoch=epoch), parts.epoch_rows(epoch))
    store.finish(held, parts.failed(states.Reason.DIVERGED))
    drawn = plain(screen("watch", held.id))
    assert "✘ failed" in drawn
    assert "training loss by step" in drawn
    assert "accuracy by epoch" in drawn
    assert "\x1b[3" not in drawn
    assert f"error: Job {held.id} failed: diverged." in drawn
    dumb = screen("watch", held.id, TERM="dumb")
    assert dumb[0].split("\t")[1:3] == [held.id, "failed"]


def test_what_a_job_says_cannot_steer_the_terminal(screen: Screen, store: base.Store) -> None:
    job = parts.submit(store, spec=specs.JobSpec(data="/srv/\x1b]0;title\x07\x1b[2Jcat"))
    for words in (("list",), ("status",), ("status", job.id)):
        text = "\n".join(screen(*words))
        assert "title" not in text
        assert "\x1b[2J" not in text
    assert "cat" in text  # the job's page has room for all of it
