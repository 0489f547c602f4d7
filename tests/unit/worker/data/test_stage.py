"""The download stage over its pipe, in a process of its own: what it says, how it stops, what it leaves."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core import specs, states
from tests.support import archives, httpserver, pictures
from tests.support.waiting import until
from worker import protocol
from worker import stage as frame
from worker.data import stage

ARCHIVE = archives.zipped(pictures.members())
#: Forks from a process that has imported what they need: that is ten times as fast as to spawn each.
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload([__name__])


def assignment(url: str, folder: Path) -> protocol.Assignment:
    return protocol.Assignment(
        attempt=1,
        spec=specs.parse({"data": url}),
        data_hash=None,
        checkpoints=(),
        artifact_root=str(folder / "artifacts"),
        attempt_dir=str(folder / "artifacts" / "1"),
        data_dir=str(folder / "data"),
        devices=("cpu",),
        threads=1,
    )


def _work(message: str, connection: Connection, grace: float) -> None:
    os.setpgid(0, 0)
    frame._STOP_GRACE = grace
    raise SystemExit(stage.main(protocol.Assignment.model_validate_json(message), connection))


@contextmanager
def working(task: protocol.Assignment, *, grace: float = 60) -> Iterator[tuple[Any, Connection]]:
    """Start the stage in a process of its own, and end it for certain; a stop gives it so many seconds."""
    ours, theirs = FORKING.Pipe()
    process = FORKING.Process(target=_work, args=(task.model_dump_json(), theirs, grace))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def messages(connection: Connection) -> list[Any]:
    """Return everything that is said until the process has gone."""
    said: list[Any] = []
    try:
        while connection.poll(60):
            said.append(protocol.heard(connection.recv_bytes()))
    except EOFError:
        return said
    pytest.fail("the stage fell silent")


def test_progress_then_the_data_set_then_the_end(server: httpserver.Server, tmp_path: Path) -> None:
    with working(assignment(server.on("/pets.zip", httpserver.Reply(body=ARCHIVE)), tmp_path)) as (process, pipe):
        *progress, ready, ended = messages(pipe)
        process.join(60)
        assert process.exitcode == protocol.EXIT_DONE
    assert {step.unit for step in progress} == {"bytes", "images"}
    assert ready.dataset.counts == {"train": 12, "val": 6}
    assert ready.dataset.path.startswith(str(tmp_path / "data"))
    assert ended == protocol.Ended(how="done")


def test_pictures_in_both_splits_are_a_note_and_no_failure(server: httpserver.Server, tmp_path: Path) -> None:
    files = pictures.members()
    files["validation/cats/copy.jpg"] = files["train/cats/0.jpg"]
    url = server.on("/pets.zip", httpserver.Reply(body=archives.zipped(files)))
    with working(assignment(url, tmp_path)) as (_, pipe):
        *_, ready, note, ended = messages(pipe)
    assert ready.dataset.shared == 1
    assert note.detail == "1 of 7 are in the train split too: the accuracy flatters"
    assert ended == protocol.Ended(how="done")


def test_a_failure_is_told_with_its_reason_and_a_hint(server: httpserver.Server, tmp_path: Path) -> None:
    with working(assignment(server.url("/missing.zip"), tmp_path)) as (process, pipe):
        (failed,) = messages(pipe)
        process.join(60)
        assert process.exitcode == protocol.EXIT_FAILED
    assert failed.reason is states.Reason.BAD_INPUT
    assert "404" in failed.error
    assert failed.hint


@pytest.mark.parametrize("how", ["message", "signal"])
@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ({"rate": 20_000.0, "endless": True}, 0),
        ({"cut_after": 9_000}, 1),  # waits to try again: it is ended from outside, as a kill would
    ],
    ids=["receiving", "waiting to retry"],
)
def test_a_stop_ends_it_and_keeps_the_part(
    server: httpserver.Server, tmp_path: Path, how: str, reply: dict[str, Any], left: int
) -> None:
    silent = httpserver.Reply(status=503, headers={"Retry-After": "60"})
    url = server.on("/pets.zip", httpserver.Reply(body=ARCHIVE, **reply), silent)
    with working(assignment(url, tmp_path), grace=0.5 if left else 60) as (process, pipe):
        assert pipe.poll(60)
        if left:  # where it waits for a server that has asked for it, and receives nothing more
            until(lambda: len(server.requests) == 2, seconds=60)
        if how == "message":
            protocol.send(pipe, protocol.Stop())
        else:
            os.kill(process.pid, signal.SIGTERM)
        assert messages(pipe)[-1] == protocol.Ended(how="stopped")
        process.join(60)
        assert process.exitcode == protocol.EXIT_STOPPED
    (part,) = (tmp_path / "data" / "archives").glob("*.part")
    assert part.stat().st_size > 0
    assert len(list((tmp_path / "data" / "locks").glob("*.progress"))) == left


def test_it_ends_when_its_supervisor_has_died(server: httpserver.Server, tmp_path: Path) -> None:
    url = server.on("/pets.zip", httpserver.Reply(body=ARCHIVE, rate=5_000, endless=True))
    with working(assignment(url, tmp_path)) as (process, pipe):
        assert pipe.poll(60)
        pipe.close()
        process.join(60)
        assert process.exitcode == protocol.EXIT_FENCED
