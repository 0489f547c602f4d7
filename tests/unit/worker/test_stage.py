"""The frame of a stage: its end is told once, exceptions get their reasons, and stops are heard."""

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import states
from tests.support.waiting import until
from worker import protocol, stage


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


@contextlib.contextmanager
def pipe() -> Iterator[tuple[Connection, Connection]]:
    """Yield both ends; the thread that reads has ended before its end's number may become another test's."""
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        with ours:
            yield ours, theirs
        for thread in threading.enumerate():
            if thread.name == "pipe":
                thread.join()


def run(body: Callable[[stage.Link], protocol.Ended]) -> tuple[int, list[Any]]:
    with pipe() as (ours, theirs):
        code = stage.run(theirs, body)
        said = []
        while ours.poll(0):
            said.append(protocol.heard(ours.recv_bytes()))
    return code, said


@pytest.mark.parametrize(("how", "code"), [("done", protocol.EXIT_DONE), ("stopped", protocol.EXIT_STOPPED)])
def test_the_end_is_the_last_message_and_gives_the_exit_code(how: Any, code: int) -> None:
    def body(link: stage.Link) -> protocol.Ended:
        link.send(protocol.Progress(done=1))
        return protocol.Ended(how=how, last_step=3)

    assert run(body) == (code, [protocol.Progress(done=1), protocol.Ended(how=how, last_step=3)])


def test_nothing_is_sent_behind_the_last_message() -> None:
    links: list[stage.Link] = []

    def body(link: stage.Link) -> protocol.Ended:
        links.append(link)
        assert link.end(protocol.Ended(how="stopped"))
        link.send(protocol.Progress(done=1))
        return protocol.Ended(how="done")

    assert run(body)[1] == [protocol.Ended(how="stopped")]


def test_what_names_a_file_whose_name_is_no_utf8_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    def body(_link: stage.Link) -> protocol.Ended:
        raise errors.StageFailed(os.fsdecode(b"\xe4.jpg is damaged."), reason=states.Reason.BAD_INPUT, hint="Go.")

    told = protocol.Failed(reason=states.Reason.BAD_INPUT, error="?.jpg is damaged.", hint="Go.")
    assert run(body) == (protocol.EXIT_FAILED, [told])
    assert r"\udce4.jpg is damaged" in capfd.readouterr().out


def test_a_stop_behind_the_wait_is_the_work_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_STOP_GRACE", 0.0)

    def body(link: stage.Link) -> protocol.Ended:
        with stage.leaving(link):
            pass
        link.stop_requested.set()
        assert "stop" not in {thread.name for thread in threading.enumerate()}
        return protocol.Ended(how="done")

    assert run(body) == (protocol.EXIT_DONE, [protocol.Ended(how="done")])


def test_a_stage_failure_keeps_its_reason_words_and_hint(capfd: pytest.CaptureFixture[str]) -> None:
    def body(_link: stage.Link) -> protocol.Ended:
        raise errors.StageFailed("It broke.", reason=states.Reason.DIVERGED, why="The loss is NaN.", hint="Lower lr.")

    code, said = run(body)
    assert code == protocol.EXIT_FAILED
    assert said == [
        protocol.Failed(reason=states.Reason.DIVERGED, error="It broke. The loss is NaN.", hint="Lower lr.")
    ]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), states.Reason.OOM),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), states.Reason.OOM),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), states.Reason.OOM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), states.Reason.OOM),
        (OSError(errno.ENOSPC, "No space left on device"), states.Reason.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), states.Reason.DISK_FULL),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), states.Reason.OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), states.Reason.OOM),
        (RuntimeError("GET was unable to find an engine to execute this computation"), states.Reason.OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), states.Reason.GPU_ERROR),
        (AcceleratorError("device-side assert triggered"), states.Reason.GPU_ERROR),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), states.Reason.GPU_ERROR),
        (OSError(errno.EIO, "Input/output error"), states.Reason.INTERNAL),
        (KeyError("x"), states.Reason.INTERNAL),
        (errors.InvalidSetting("Unknown setting."), states.Reason.USER_ERROR),
    ],
)
def test_other_exceptions_get_a_reason_and_a_traceback_in_the_log(
    error: Exception, reason: states.Reason, capfd: pytest.CaptureFixture[str]
) -> None:
    def body(_link: stage.Link) -> protocol.Ended:
        raise error

    code, said = run(body)
    assert (code, said[0].reason) == (protocol.EXIT_FAILED, reason)
    assert "\n" not in said[0].error
    assert "Traceback" in capfd.readouterr().err


def test_a_log_on_the_disk_that_is_full_does_not_hide_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(_link: stage.Link) -> protocol.Ended:
        raise OSError(errno.ENOSPC, "No space left on device")

    full = Path("/dev/full").open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closing it fails, by design
    monkeypatch.setattr("sys.stderr", full)
    code, said = run(body)
    with contextlib.suppress(OSError):
        full.close()
    assert (code, said[0].reason) == (protocol.EXIT_FAILED, states.Reason.DISK_FULL)
    assert said[0].error.startswith("The disk is full.")


@pytest.mark.parametrize(("file", "named"), [(None, "below /artifacts"), ("/data/x", "'/data/x'")])
def test_which_disk_is_full_is_said(file: str | None, named: str) -> None:
    failed = stage.failure(OSError(errno.ENOSPC, "No space left on device", file), folder=Path("/artifacts"))
    assert failed.reason == states.Reason.DISK_FULL
    assert failed.error.startswith("The disk is full.")
    assert failed.error.endswith(named)


def test_stop_and_sigterm_are_heard_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    heard: list[str] = []

    def by_message(link: stage.Link) -> protocol.Ended:
        protocol.send(ends[0], protocol.Stop())
        until(link.stop_requested.is_set, seconds=60)
        heard.append("message")
        return protocol.Ended(how="stopped")

    def by_signal(link: stage.Link) -> protocol.Ended:
        os.kill(os.getpid(), signal.SIGTERM)
        until(link.stop_requested.is_set, seconds=60)
        heard.append("signal")
        return protocol.Ended(how="stopped")

    with pipe() as ends:
        assert stage.run(ends[1], by_message) == protocol.EXIT_STOPPED
    assert run(by_signal)[0] == protocol.EXIT_STOPPED
    assert heard == ["message", "signal"]
    assert signal.getsignal(signal.SIGTERM) is before


def _orphaned(connection: Connection) -> None:
    def body(link: stage.Link) -> protocol.Ended:
        link.send(protocol.Progress(done=0))
        link.stop_requested.wait(100)
        return protocol.Ended(how="done")

    raise SystemExit(stage.run(connection, body))


def test_a_process_whose_supervisor_died_ends_by_itself() -> None:
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_orphaned, args=(theirs,))
    process.start()
    theirs.close()
    assert ours.poll(60)
    ours.close()
    process.join(60)
    assert process.exitcode == protocol.EXIT_FENCED
