"""What people and workers share: a store whose answers may get lost, a clock, doorbells, and our own account."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from orchestrator import config, errors
from orchestrator.core import retry, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.faults.machine.checks import Account
from tests.faults.machine.queue import Queue

#: What the kernel keeps in memory has no disk to wait for; it is a file to SQLite all the same.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder is made in it, of a name nobody knows


class World:
    """One installation; `template` is a SQLite file with our schema."""

    def __init__(self, template: Path) -> None:
        self._resources = ExitStack()
        home = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="orch-machine-", dir=_MEMORY)))
        shutil.copy(template, home)
        self.clock = HandClock()
        self.store = sql.open_store(config.Settings(home=home), clock=self.clock)
        self._resources.callback(self.store.close)
        self.queue = Queue()
        self.account = Account(self.store, self.clock)
        dice = random.Random(0)  # noqa: S311 - of the pauses before retries: a history is the same one each time
        self._resources.enter_context(mock.patch.object(retry, "random", SimpleNamespace(SystemRandom=lambda: dice)))
        self._losing = 0  #: answers to commits that are lost from now on
        self._make_commits_lossy()

    def close(self) -> None:
        """Leave nothing behind."""
        self._resources.close()

    def ring(self, stage: states.Stage) -> None:
        """Ring for a stage as a command line does: where the broker is away, nobody hears it."""
        with suppress(errors.BrokerUnavailable):
            self.queue.ring(stage)

    def lose(self, act: Callable[[], object]) -> None:
        """Do something and lose the answer."""
        with suppress(errors.DatabaseUnavailable, errors.IllegalMove), self.losing(1):
            act()

    @contextmanager
    def losing(self, answers: int) -> Iterator[None]:
        """Lose so many answers to what is committed meanwhile."""
        self._losing = answers
        try:
            yield
        finally:
            self._losing = 0

    def _make_commits_lossy(self) -> None:
        write = self.store.database.write

        def cut(work: Any, **named: Any) -> Any:
            result = write(work, **named)
            if self._losing:
                self._losing -= 1
                raise errors.DatabaseUnavailable(why="the connection was cut during the commit")
            return result

        self.store.database.write = cut  # type: ignore[method-assign]  # it loses answers
