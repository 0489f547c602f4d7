"""The processes of a training on several devices: one for each, all in one process group; rank 0 leads.

Rank 0 is the process that was started. It forks the others before it has a thread, so that they begin as warm as
itself; it alone talks to the supervisor and writes checkpoints. They wait on their pipes until it knows data and state,
then all meet at a file in memory: no port is chosen, and nothing lies on a disk. The kernel kills the others when rank
0 dies; rank 0 ends when another one does, with its reason, and whoever waits too long for a rank gives up.
"""

import ctypes
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection, Pipe
from typing import NoReturn

import numpy as np
import torch

from orchestrator import config, errors, failpoints
from orchestrator.core import states
from worker import protocol, stage
from worker.data import shares
from worker.training import world

#: Seconds for other ranks to end, behind the last step or when one of them has gone.
_END_SECONDS = 5.0
#: Seconds that rank 0 has to leave in good order when another rank has died: its next step does so.
_LEAVE_SECONDS = 10.0
#: The part of the stall time that a rank is waited for: here it can still be said which one it is.
_PATIENCE = 0.9

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What a rank has from the start: which one it is, an end of its pipe, and what the fork shares with the others."""

    share: shares.Share
    store: str
    ticks: world.Ticks
    pipe: Connection | None = None  #: to rank 0, of the others

    def told(self) -> tuple[protocol.DatasetInfo, bytes]:
        """Return the data set and the state to begin with, once rank 0 knows them; raises Parted where it ends."""
        assert self.pipe is not None  # noqa: S101 - rank 0 is told nothing
        try:
            failpoints.reach("ranks.hear")
            data, state = self.pipe.recv_bytes(), self.pipe.recv_bytes()
        except EOFError as error:
            raise world.Parted("rank 0 has ended") from error
        return protocol.DatasetInfo.model_validate_json(data), state

    def join(self, device: torch.device) -> world.World:
        """Meet the other ranks."""
        patience = _PATIENCE * config.load().stall
        return world.join(self.share, self.store, device=device, patience=patience, ticks=self.ticks)


@dataclass(frozen=True, kw_only=True)
class _Follower:
    pid: int
    ending: int  #: a descriptor that becomes readable when it has ended
    pipe: Connection
    name: str


class Team:
    """The ranks of a training, as rank 0 has them; without a seat it is alone."""

    def __init__(
        self, seat: Seat | None = None, followers: tuple[_Follower, ...] = (), cause: protocol.Failed | None = None
    ) -> None:
        self._seat = seat
        self._followers = followers
        self._world = world.ALONE
        self._device = torch.device("cpu")
        self._cause = cause  #: why another rank ended before the end
        self._known = threading.Event()
        self._left = threading.Event()

    @property
    def share(self) -> shares.Share:
        """The part of rank 0."""
        return self._seat.share if self._seat else shares.ALONE

    def lead(self, body: Callable[[], protocol.Ended], *, say: Callable[[protocol.Failed], object]) -> protocol.Ended:
        """Do rank 0's work. `say` is told of another rank's end where the work does not notice it.

        Raises:
            StageFailed: another rank could not be started, failed, died, or did not come to a step.

        """
        if self._seat is None:
            return body()
        watching = threading.Thread(target=self._watch, args=(say,), name="ranks", daemon=True)
        watching.start()
        try:
            return self._led(body)
        finally:
            self._left.set()
            self._end(watching, patient=sys.exc_info()[0] is None)

    def gather(self, data: protocol.DatasetInfo, state: Callable[[], bytes], device: torch.device) -> world.World:
        """Let the others begin with this data and state, and return the world that all are in."""
        if self._seat is None:
            return self._world
        began = state()
        try:
            for follower in self._followers:
                failpoints.reach("ranks.tell")
                follower.pipe.send_bytes(data.model_dump_json().encode())
                follower.pipe.send_bytes(began)
        except OSError as error:
            raise world.Parted(str(error)) from error
        self._device = device
        self._world = self._seat.join(device)
        return self._world

    def _led(self, body: Callable[[], protocol.Ended]) -> protocol.Ended:
        if self._cause is not None:
            raise _failure(self._cause)
        try:
            return body()
        except errors.OrchError:
            raise
        except Exception as error:
            if isinstance(error, world.Parted) and not isinstance(error, world.Silent):
                self._known.wait(_END_SECONDS)
            if self._cause is not None:
                raise _failure(self._cause) from error
            if isinstance(error, world.Parted):
                raise _failure(self._silence()) from error
            raise

    def _watch(self, say: Callable[[protocol.Failed], object]) -> None:
        """Wait until all have ended or one has died, and see that rank 0 ends then, whatever it is at."""
        running = {follower.ending: follower for follower in self._followers}
        while running and self._cause is None:
            for ending in connection.wait(list(running)):
                assert isinstance(ending, int)  # noqa: S101 - as they were given, said to the type checker
                self._cause = self._cause or _cause(running.pop(ending))
        if self._cause is None:
            return
        self._known.set()
        if not self._left.wait(_LEAVE_SECONDS):
            with suppress(OSError):
                say(self._cause)
            os._exit(protocol.EXIT_FAILED)

    def _end(self, watching: threading.Thread, *, patient: bool) -> None:
        """See that all other ranks have ended; those that have not begun do not end by themselves."""
        if patient and self._world is not world.ALONE:
            watching.join(_END_SECONDS)
            if watching.is_alive():
                sys.stderr.write("Some ranks did not end with the others, and are killed.\n")
            world.leave(self._device)
        for follower in self._followers:
            signal.pidfd_send_signal(follower.ending, signal.SIGKILL)
        watching.join()
        for follower in self._followers:
            os.waitpid(follower.pid, 0)
            os.close(follower.ending)
            follower.pipe.close()

    def _silence(self) -> protocol.Failed:
        behind = self._world.behind()
        who = "A rank" if behind is None else _name(behind, self.share.ranks)
        return protocol.Failed(reason=states.Reason.STALLED, error=f"{who} did not come to the next step in time.")


ALONE = Team()


def started(assignment: protocol.Assignment, follow: Callable[[Seat], None]) -> Team:
    """Start a process for each device but the first, which does `follow`, and return the team of this one.

    To be called before this process has a thread or has run a tensor operation: neither survives a fork.
    """
    ranks = len(assignment.devices)
    if ranks == 1:
        return Team()
    store = f"/proc/self/fd/{os.memfd_create('ranks')}"
    ticks = np.frombuffer(mmap.mmap(-1, ranks * np.dtype(np.int64).itemsize), np.int64)
    leader = os.getpid()
    followers: list[_Follower] = []
    cause = None
    for rank in range(1, ranks):
        mine, theirs = Pipe()
        try:
            failpoints.reach("ranks.fork")
            pid = os.fork()
        except OSError as error:
            name = _name(rank, ranks)
            cause = protocol.Failed(reason=states.Reason.LOST, error=f"{name} could not be started: {error}.")
            break
        if pid == 0:
            for end in (mine, *(follower.pipe for follower in followers)):
                end.close()
            share = shares.Share(rank=rank, ranks=ranks)
            _become(Seat(share=share, store=store, ticks=ticks, pipe=theirs), theirs, follow, leader)
        theirs.close()
        followers.append(_Follower(pid=pid, ending=os.pidfd_open(pid), pipe=mine, name=_name(rank, ranks)))
    seat = Seat(share=shares.Share(ranks=ranks), store=store, ticks=ticks)
    return Team(seat, tuple(followers), cause)


def _become(seat: Seat, pipe: Connection, follow: Callable[[Seat], None], leader: int) -> NoReturn:
    """Turn the forked copy into a rank that follows."""
    status = protocol.EXIT_FAILED
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != leader:  # it died before that was set
            os._exit(status)
        for wish in (signal.SIGTERM, signal.SIGINT):  # the group hears them; rank 0 says when all stop
            signal.signal(wish, signal.SIG_IGN)
        follow(seat)
        status = protocol.EXIT_DONE
    except world.Parted:
        status = protocol.EXIT_FENCED  # another one is the cause
    except Exception as error:  # noqa: BLE001 - the edge: rank 0 says what it was
        with suppress(OSError):
            failpoints.reach("ranks.fail")
            pipe.send_bytes(protocol.encoded(stage.failure(error)))
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(status)


def _cause(follower: _Follower) -> protocol.Failed | None:
    """Return why a rank that has ended did so; None where it was done, or followed another one."""
    with suppress(EOFError, OSError):
        if follower.pipe.poll():
            failpoints.reach("ranks.listen")
            said = protocol.Failed.model_validate_json(follower.pipe.recv_bytes())
            return said.model_copy(update={"error": f"{follower.name}: {said.error}"})
    ended = os.waitid(os.P_PIDFD, follower.ending, os.WEXITED | os.WNOWAIT)
    assert ended is not None  # noqa: S101 - without WNOHANG it waits
    if ended.si_code != os.CLD_EXITED:
        name = signal.Signals(ended.si_status).name
        return protocol.Failed(reason=states.Reason.LOST, error=f"{follower.name} was ended by {name}.")
    if ended.si_status in {protocol.EXIT_DONE, protocol.EXIT_FENCED}:
        return None
    return protocol.Failed(
        reason=states.Reason.INTERNAL,
        error=f"{follower.name} ended with code {ended.si_status} and said nothing.",
        hint="Its log says more: `orch logs`.",
    )


def _failure(cause: protocol.Failed) -> errors.StageFailed:
    return errors.StageFailed(cause.error, reason=cause.reason, hint=cause.hint)


def _name(rank: int, ranks: int) -> str:
    return f"Rank {rank} of {ranks}"
