"""A job's way, and what may happen on it."""

import contextlib

from orchestrator import config
from orchestrator.core import states, telling
from orchestrator.service import context, control
from tests.faults import homes
from worker import journal


def life(home: homes.Home) -> None:
    """A job's whole way: submit, download, train with checkpoints and retention, evaluate."""
    home.arm()
    succeeds(home, home.submit())


def together(home: homes.Home) -> None:
    """A job trains on two devices at once."""
    home.arm()
    succeeds(home, home.submit(gpus=2))


def apart(home: homes.Home) -> None:
    """The same, and twice one of its ranks fails."""
    home.set("ranks.hear", "raise", "raise")
    home.arm()
    succeeds(home, home.submit(gpus=2, retries={states.Reason.INTERNAL: 5}))


def picked(home: homes.Home) -> None:
    """The layout is picked by measuring, and remembered."""
    home.arm()
    succeeds(home, home.submit(layout="auto"))


def succeeds(home: homes.Home, job_id: str) -> None:
    """Wait for the end; what a spoilt loss ended is retried by its owner, everything else by the queue itself."""
    if home.ends(job_id) == "succeeded":
        return
    ((reason, error),) = home.rows("SELECT reason, error FROM jobs WHERE id = ?", job_id)
    spoilt = home.case is not None and home.case.actions == "nan"
    assert reason == "diverged", f"it failed with {reason}: {error}"
    assert spoilt, error
    home.call(lambda settings: again(settings, job_id))
    assert home.ends(job_id) == "succeeded"


def again(settings: config.Settings, job_id: str) -> str:
    """Retry the job, as `orch retry` does."""
    with context.opened(settings) as it:
        return control.retry(settings, it.store, job_id)[0].id


def noisy(home: homes.Home) -> None:
    """The first process of the job fails, and prints why: that is a log."""
    home.set("cache.find", "raise")
    life(home)


def journalled(home: homes.Home) -> None:
    """The database is away for a moment: what is said then goes into the journal.

    No step is told of before the place is reached: a journal that fails gives the values of steps up.
    """
    home.set("store.record_resumed.begin", "enospc")
    _held(home, "train.loss")


def outlasted(home: homes.Home) -> None:
    """The database is away until the training is over, which keeps some checkpoints: all epochs are written."""
    home.set("store.record_resumed.begin", *["enospc"] * 1000)
    job_id = home.submit(epochs=3)
    home.until(lambda: '"step":6,' in _journals(home))
    home.arm()
    home.disarm("store.record_resumed.begin")
    succeeds(home, job_id)


def _journals(home: homes.Home) -> str:
    """Return what waits in journals; one goes with its attempt where that is lost."""
    said = []
    for file in home.path.glob(f"artifacts/*/*/{journal.FILE}"):
        with contextlib.suppress(FileNotFoundError):
            said.append(file.read_text(encoding="utf-8"))
    return "".join(said)


def unheard(home: homes.Home) -> None:
    """A claim is committed, and its answer is lost."""
    home.set("store.claim.committed", "enospc")
    life(home)


def told(home: homes.Home) -> None:
    """A webhook is told of the end."""
    home.arm()
    job_id = home.submit(notify=telling.Telling(targets=(f"{home.shared.url}/hook",)))
    succeeds(home, job_id)
    home.until(lambda: home.rows("SELECT 1 FROM notices WHERE tries > 0"))


def waiting(home: homes.Home) -> None:
    """No slot takes the job until the place is reached."""
    _held(home, "store.is_worth_it.begin", those=2)


def unhurried(home: homes.Home) -> None:
    """The training takes as long as it takes until the place is reached: longer than a heartbeat."""
    _held(home, "checkpoint.open")


def _held(home: homes.Home, place: str, *, those: int = 1) -> None:
    """A job's way, on which so many who come by `place` are held there until the places of the case are reached."""
    home.set(place, *["hold"] * those)
    home.arm()
    job_id = home.submit()
    home.until(home.reached)
    home.let_go(place)
    succeeds(home, job_id)


def damaged(home: homes.Home) -> None:
    """The best checkpoint is damaged before it is measured: the history says so, another is used, a backup restored."""
    home.set("checkpoint.read", "hold")
    job_id = home.submit()
    home.held("checkpoint.read")
    ((path,),) = home.rows("SELECT path FROM checkpoints WHERE job_id = ? AND best", job_id)
    file = home.settings.artifact_dir / path
    whole = file.read_bytes()
    file.write_bytes(b"")
    home.arm()
    home.let_go("checkpoint.read")
    succeeds(home, job_id)
    file.write_bytes(whole)
