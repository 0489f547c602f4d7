"""Stages that a test's fork server runs in place of the real ones: each is a way to behave, or to misbehave."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from worker import protocol, stage


def succeed(assignment: protocol.Assignment, connection: Connection) -> int:
    """Report a step, print a line, end well."""

    def body(link: stage.Link) -> protocol.Ended:
        sys.stdout.write(f"attempt {assignment.attempt} of {Path(assignment.attempt_dir).parent.name}\n")
        link.send(protocol.Progress(done=1, total=1))
        return protocol.Ended(how="done", last_step=1)

    return stage.run(connection, body)


def talk(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Say more than a pipe holds, then write into the log that all is said."""

    def body(link: stage.Link) -> protocol.Ended:
        for step in range(1, 501):
            link.send(protocol.Steps(values=((step, "loss", 1.0),)))
        sys.stdout.write("all is said\n")
        sys.stdout.flush()
        return protocol.Ended(how="done", last_step=500)

    return stage.run(connection, body)


def wait_for_stop(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Say that it runs, then wait to be asked to stop."""

    def body(link: stage.Link) -> protocol.Ended:
        link.send(protocol.Progress(done=1))
        while not link.stop_requested.is_set():
            time.sleep(0.01)
        return protocol.Ended(how="stopped", last_step=7)

    return stage.run(connection, body)


def stop_late(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Be asked to stop in the middle of a step that takes its supervisor's tick twice."""

    def body(link: stage.Link) -> protocol.Ended:
        link.send(protocol.Progress(done=1))
        link.stop_requested.wait()
        time.sleep(2.5)
        return protocol.Ended(how="stopped", last_step=7)

    return stage.run(connection, body)


def ignore_stop(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Hang like a step that never ends, with a child that does as well."""
    if os.fork() == 0:
        signal.pause()
    protocol.send(connection, protocol.Progress(done=1))
    signal.pause()
    return protocol.EXIT_FAILED


def stop_in_a_word(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Freeze in the middle of a message, and say in the log when that is over."""
    protocol.send(connection, protocol.Progress(done=1))
    os.write(connection.fileno(), (1000).to_bytes(4, "big") + b"{")
    time.sleep(20)
    sys.stdout.write("it goes on\n")
    return protocol.EXIT_FAILED


def crash(_assignment: protocol.Assignment, _connection: Connection) -> int:
    """Die by a signal without a word."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return protocol.EXIT_FAILED


def leave_in_silence(_assignment: protocol.Assignment, _connection: Connection) -> int:
    """End with a code of its own and say nothing."""
    sys.stderr.write("the last words\n")
    return 3


def lose_its_pipe(_assignment: protocol.Assignment, _connection: Connection) -> int:
    """End as where a read of the pipe fails, though the supervisor lives."""
    return protocol.EXIT_FENCED


def fail(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Raise what nobody foresaw."""

    def body(_link: stage.Link) -> protocol.Ended:
        raise ZeroDivisionError("by design")

    return stage.run(connection, body)


def tell_environment(_assignment: protocol.Assignment, connection: Connection) -> int:
    """Report by exit code whether it leads its own group, has no GPU and sees no input."""
    leads = os.getpgid(0) == os.getpid()
    blind = os.popen("printenv CUDA_VISIBLE_DEVICES").read().strip() == ""  # noqa: S605 - what a child would see
    silent = sys.stdin is None or os.read(0, 1) == b""
    connection.close()
    return 40 + leads + 2 * blind + 4 * silent


#: Once there is a file of this name in its folder, an attempt's supervisor counts what the kernel kills.
COUNTED = "counted"


def use_up_memory(assignment: protocol.Assignment, connection: Connection) -> int:
    """Take memory until the kernel kills and its supervisor sees that; this process is to be the one."""
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    protocol.send(connection, protocol.Progress(done=1))
    while not (Path(assignment.attempt_dir) / COUNTED).exists():
        time.sleep(0.01)
    taken = []
    while True:
        taken.append(b"x" * 2**24)


def be_killed(_assignment: protocol.Assignment, _connection: Connection) -> int:
    """Die as of the kernel's or anybody's SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)
    return protocol.EXIT_FAILED


def succeed_or_die(assignment: protocol.Assignment, connection: Connection) -> int:
    """Succeed, but for the job with the unlucky seed, whose every process dies."""
    return be_killed(assignment, connection) if assignment.spec.seed == 13 else succeed(assignment, connection)
