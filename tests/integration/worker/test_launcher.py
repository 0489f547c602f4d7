import os
import signal
import socket
from multiprocessing import connection
from pathlib import Path

import psutil
import pytest

from orchestrator import errors
from orchestrator.core import layout, specs
from tests.support import forking, running
from tests.support.waiting import until
from worker import protocol
from worker.launcher import Launcher, Process, kill_leftover

pytestmark = pytest.mark.slow


@pytest.fixture
def attempt_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "attempt-0001"
    folder.mkdir()
    return folder


def _assignment(attempt_dir: Path) -> protocol.Assignment:
    return protocol.Assignment(
        attempt=1,
        spec=specs.JobSpec(),
        data_hash=None,
        checkpoints=(),
        artifact_root=str(attempt_dir.parent),
        attempt_dir=str(attempt_dir),
        data_dir=str(attempt_dir.parent / "data"),
        devices=("cpu",),
        threads=1,
    )


def _start(fork_server: Path, attempt_dir: Path, stage: str) -> Process:
    launcher = Launcher(fork_server)
    return launcher.start(f"tests.support.stages:{stage}", _assignment(attempt_dir), log=attempt_dir / "log.txt")


def _wait(process: Process) -> None:
    assert connection.wait([process.ending], timeout=60)
    process.collect()


def test_a_process_speaks_over_its_pipe_and_ends(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "succeed") as process:
        assert protocol.heard(process.connection.recv_bytes()) == protocol.Progress(done=1, total=1)
        assert protocol.heard(process.connection.recv_bytes()) == protocol.Ended(how="done", last_step=1)
        _wait(process)
        assert (process.exit_code, process.killed_by) == (protocol.EXIT_DONE, None)
    printed, diary = (attempt_dir / "log.txt").read_text(encoding="utf-8").splitlines()
    assert printed == f"attempt 1 of {attempt_dir.parent.name}"
    assert diary.endswith("Z  done at step 1")
    assert int((attempt_dir / layout.PID).read_text(encoding="ascii")) == process.pid


def test_a_process_stops_when_asked(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "wait_for_stop") as process:
        protocol.heard(process.connection.recv_bytes())
        process.ask_to_stop()
        assert protocol.heard(process.connection.recv_bytes()) == protocol.Ended(how="stopped", last_step=7)
        _wait(process)
        assert process.exit_code == protocol.EXIT_STOPPED


def test_a_kill_takes_the_whole_group(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "ignore_stop") as process:
        protocol.heard(process.connection.recv_bytes())
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        _wait(process)
        assert process.killed_by == signal.SIGKILL
    until(lambda: running.gone(child))


def test_a_process_leads_its_group_before_it_runs(cold_fork_server: Path, attempt_dir: Path) -> None:
    for _ in range(20):
        with _start(cold_fork_server, attempt_dir, "ignore_stop") as process:
            assert os.getpgid(process.pid) == process.pid


def test_a_process_that_crashes_tells_its_signal(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "crash") as process:
        _wait(process)
        assert process.killed_by == signal.SIGSEGV


def test_a_process_leads_its_group_sees_no_gpu_and_reads_nothing(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "tell_environment") as process:
        _wait(process)
        assert process.exit_code == 40 + 1 + 2 + 4


def test_a_process_dies_with_its_supervisor(cold_fork_server: Path, attempt_dir: Path) -> None:
    process = _start(cold_fork_server, attempt_dir, "wait_for_stop")
    protocol.heard(process.connection.recv_bytes())
    process.connection.close()
    _wait(process)
    assert process.exit_code == protocol.EXIT_FENCED
    process.ending.close()


def test_what_a_dead_supervisor_left_running_is_killed(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "ignore_stop") as process:
        protocol.heard(process.connection.recv_bytes())
        kill_leftover(attempt_dir)
        _wait(process)
        assert process.killed_by == signal.SIGKILL


def test_a_leftover_is_found_behind_a_symbolic_link(cold_fork_server: Path, attempt_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(attempt_dir)
    with _start(cold_fork_server, attempt_dir, "ignore_stop") as process:
        protocol.heard(process.connection.recv_bytes())
        kill_leftover(link)
        _wait(process)
        assert process.killed_by == signal.SIGKILL


def test_a_process_outlives_its_fork_server_and_stops_when_asked(attempt_dir: Path, tmp_path: Path) -> None:
    with (
        forking.server(tmp_path / "s", preload=()) as server,
        _start(tmp_path / "s", attempt_dir, "wait_for_stop") as process,
    ):
        protocol.heard(process.connection.recv_bytes())
        server.kill()
        server.wait()
        assert not connection.wait([process.ending], timeout=0.1)
        process.ask_to_stop()
        assert protocol.heard(process.connection.recv_bytes()) == protocol.Ended(how="stopped", last_step=7)
        _wait(process)
        assert (process.exit_code, process.killed_by) == (None, None)


def test_a_fork_server_that_hangs_holds_nobody_up(
    attempt_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forking.server(tmp_path / "s", preload=()) as server:
        with _start(tmp_path / "s", attempt_dir, "ignore_stop") as process:
            monkeypatch.setattr("worker.launcher._ANSWER_SECONDS", 0.2)
            monkeypatch.setattr("worker.launcher._START_SECONDS", 1)
            server.send_signal(signal.SIGSTOP)
            process.kill()
            process.collect()
            assert process.killed_by is None
        with pytest.raises(errors.OrchError, match="does not answer"):
            _start(tmp_path / "s", attempt_dir, "succeed")


def test_a_request_that_breaks_off_leaves_no_descriptor_open(cold_fork_server: Path, attempt_dir: Path) -> None:
    with _start(cold_fork_server, attempt_dir, "ignore_stop") as process:
        server = psutil.Process(psutil.Process(process.pid).ppid())
        process.kill()
        _wait(process)
    before = server.num_fds()
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as asker, Path(os.devnull).open("rb") as nothing:
            asker.connect(str(cold_fork_server))
            socket.send_fds(asker, [b"{"], [nothing.fileno()] * 3)
    with _start(cold_fork_server, attempt_dir, "succeed") as process:  # answered behind all of them
        _wait(process)
    until(lambda: server.num_fds() <= before)


def test_a_pid_that_belongs_to_another_process_now_is_left_alone(attempt_dir: Path) -> None:
    (attempt_dir / layout.PID).write_text(str(os.getpid()), encoding="ascii")
    kill_leftover(attempt_dir)  # would end this very test
    assert psutil.Process().is_running()


def test_many_processes_at_once_each_get_their_own_end(cold_fork_server: Path, tmp_path: Path) -> None:
    processes = []
    for number in range(8):
        folder = tmp_path / f"attempt-{number:04d}"
        folder.mkdir()
        processes.append(_start(cold_fork_server, folder, "succeed" if number % 2 else "crash"))
    for number, process in enumerate(processes):
        with process:
            _wait(process)
            assert (process.exit_code == protocol.EXIT_DONE) == bool(number % 2)
