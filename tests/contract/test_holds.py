"""The audit compares what the processes of running attempts hold with what their jobs train on."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator import config, processes
from orchestrator.core import gangs, jobs, specs
from orchestrator.core.findings import Kind
from orchestrator.service import audit, holds
from orchestrator.store import base
from tests.contract import parts
from tests.support import pools


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAUSES", (0.0, 0.0))


def training(store: base.Store, gpus: int = 1) -> jobs.Claim:
    """Return the claim of a job that trains on so many devices."""
    job = parts.submit(store, spec=specs.JobSpec(gpus=gpus))
    store.finish(parts.claimed(store), parts.DONE)
    held = parts.claimed(store, pool=pools.Devices(gpus).slot(0))
    assert held.id == job.id
    store.record_resumed(held, attempt=None, step=0)
    return held


@contextmanager
def at_work(settings: config.Settings, held: jobs.Claim, *locks: str) -> Iterator[None]:
    """Let a process work for the attempt that holds these locks."""
    folder = settings.artifact_dir / held.id / f"attempt-{held.attempt:04d}"
    folder.mkdir(parents=True)
    settings.run_dir.mkdir(exist_ok=True)
    settings.lock_dir.mkdir(exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log.txt").open("wb"))
        opened = []
        for lock in locks:
            where = settings.run_dir if lock.endswith(".device") else settings.lock_dir
            opened.append(stack.enter_context((where / lock).open("wb")))
        process = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[file.fileno() for file in opened]
        )
        (folder / "pid").write_text(str(process.pid), encoding="ascii")
        yield
        process.communicate()


def found(settings: config.Settings, store: base.Store) -> list[str]:
    return [finding.sentence for finding in audit.audit(settings, store) if finding.kind is Kind.DEVICE]


def test_each_running_attempt_holds_devices_of_its_own(settings: config.Settings, store: base.Store) -> None:
    one, gang = training(store), training(store, 2)
    assert gangs.counted(store.attempts(gang.id)[-1].device) == 2
    with at_work(settings, one, "a.cpu.0.device"), at_work(settings, gang, "a.cpu.1.device", "a.cpu.2.device"):
        assert found(settings, store) == []


@pytest.mark.parametrize("shared", ["a.cpu.0.device", "GPU-1.0"])
def test_a_device_that_two_attempts_hold_is_found(settings: config.Settings, store: base.Store, shared: str) -> None:
    own = ("a.cpu.1.device", "a.cpu.2.device") if shared == "GPU-1.0" else ()
    one, other = training(store), training(store)
    with at_work(settings, one, shared, *own[:1]), at_work(settings, other, shared, *own[1:]):
        (said,) = found(settings, store)
    assert one.id in said


def test_a_gang_with_one_device_is_found(settings: config.Settings, store: base.Store) -> None:
    with at_work(settings, training(store, 2), "a.cpu.0.device"):
        assert found(settings, store) == ["attempt 2 holds 1 devices, and its stage takes 2"]


def test_what_no_process_here_holds_is_not_judged(settings: config.Settings, store: base.Store) -> None:
    training(store, 2)
    assert found(settings, store) == []


def test_a_descriptor_that_is_closed_during_the_look_hides_no_other(
    settings: config.Settings, store: base.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir

    def one_more(folder: Path) -> Iterator[Path]:
        yield from listed(folder)
        if folder.name == "fd":
            yield folder / "1000000"

    monkeypatch.setattr(Path, "iterdir", one_more)
    with at_work(settings, training(store, 2), "a.cpu.0.device"):
        assert found(settings, store) == ["attempt 2 holds 1 devices, and its stage takes 2"]


def test_one_that_ends_during_the_look_is_not_judged(
    settings: config.Settings, store: base.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = training(store, 2)
    with at_work(settings, held, "a.cpu.0.device", "a.cpu.1.device"):
        (folder,) = (settings.artifact_dir / held.id).iterdir()

        def ending(_: int) -> set[Path]:
            (folder / "pid").unlink()  # as if it were nobody's
            return set()

        monkeypatch.setattr(processes, "opened", ending)
        assert list(holds.check(settings, [store.history(held.id)])) == []  # an audit would look again
