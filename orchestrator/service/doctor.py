"""Finding out why it does not work: each check is one line with a level and a fix, none of them stops the others."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import humanize

from orchestrator import config, errors
from orchestrator.core import brokerurl
from orchestrator.core.jobs import Worker
from orchestrator.core.states import Stage
from orchestrator.service import context, files, health, query, schema

#: Less free disk than this is worth a word; a fifth of it is too little for a checkpoint and a data set.
LOW_DISK_BYTES = 10 * 2**30

#: Processes that load pictures hand batches over in shared memory; containers get 64 MiB of it, unless told otherwise.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's, and nothing is written there
LITTLE_SHARED_MEMORY_BYTES = 2**30

#: The oldest driver that torch's CUDA 13 builds work with.
OLDEST_DRIVER = 580

_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"  #: as it should be
    WARN = "warn"  #: works, with a limit
    FAIL = "fail"  #: does not work


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    level: Level
    found: str
    fix: str | None = None


def examine(settings: config.Settings) -> Iterator[Check]:
    """Yield every finding about this host and what the settings name."""
    for check in (_python, _torch, _gpus, _home, _disk, _shared_memory):
        yield from check(settings)
    database = list(_database(settings))
    yield from database
    yield from _broker(settings)
    if all(found.level is not Level.FAIL for found in database):  # asked again, one out of reach takes as long again
        yield from _workers(settings)


def _python(_: config.Settings) -> Iterator[Check]:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}, orch {_version('orch')}"
    yield Check(name="python", level=Level.OK, found=found)


def _torch(_: config.Settings) -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check(
            name="torch",
            level=Level.WARN,
            found="not installed: this host submits and looks, it cannot train",
            fix="pip install 'orch[worker]'",
        )
        return
    yield Check(name="torch", level=Level.OK, found=f"{_version('torch')}, torchvision {_version('torchvision')}")


def _gpus(_: config.Settings) -> Iterator[Check]:
    lines = _nvidia_smi()
    if lines is None:
        yield Check(name="gpu", level=Level.OK, found="none: training runs on the CPU")
        return
    for line in lines:
        name, driver, memory = (part.strip() for part in line.split(",", 2))
        old = driver.split(".")[0].isdigit() and int(driver.split(".")[0]) < OLDEST_DRIVER
        yield Check(
            name="gpu",
            level=Level.WARN if old else Level.OK,
            found=f"{name}, driver {driver}, {memory}",
            fix=f"torch's CUDA 13 builds need driver {OLDEST_DRIVER} or newer: update it." if old else None,
        )


def _home(settings: config.Settings) -> Iterator[Check]:
    kind = files.kind(settings.home) or "unknown file system"
    writable = os.access(files.existing(settings.home), os.W_OK)
    if not writable:
        yield Check(
            name="home", level=Level.FAIL, found=f"{settings.home} cannot be written", fix="Set ORCH_HOME to another."
        )
    elif kind in files.NETWORK and settings.embedded_database:
        yield Check(
            name="home",
            level=Level.FAIL,
            found=f"{settings.home} on {kind}: SQLite needs a local disk",
            fix="Set ORCH_HOME to a local folder, or ORCH_DATABASE_URL to PostgreSQL.",
        )
    else:
        yield Check(name="home", level=Level.OK, found=f"{settings.home} on {kind}")


def _disk(settings: config.Settings) -> Iterator[Check]:
    free = files.free(settings.artifact_dir)
    level = Level.OK if free >= LOW_DISK_BYTES else Level.WARN if free >= LOW_DISK_BYTES // 5 else Level.FAIL
    fix = None if level is Level.OK else "Free some space, or set ORCH_ARTIFACTS and ORCH_DATA_CACHE to other disks."
    yield Check(name="disk", level=level, found=f"{humanize.naturalsize(free, binary=True)} free", fix=fix)


def _shared_memory(_: config.Settings) -> Iterator[Check]:
    if not SHARED_MEMORY.is_dir():
        return
    total = shutil.disk_usage(SHARED_MEMORY).total
    little = total < LITTLE_SHARED_MEMORY_BYTES
    fix = "Give the container more (`shm_size: 2gb` in Compose, --shm-size=2g), or submit with --loader-workers 0."
    yield Check(
        name="shared memory",
        level=Level.WARN if little else Level.OK,
        found=humanize.naturalsize(total, binary=True),
        fix=fix if little else None,
    )


def _database(settings: config.Settings) -> Iterator[Check]:
    where = health.database(settings)
    try:
        found, wanted = schema.current(settings)
    except errors.OrchError as error:
        yield _failed("database", error)
        return
    if found == wanted:
        yield Check(name="database", level=Level.OK, found=f"{where}, schema {found}")
        return
    yield Check(
        name="database",
        level=Level.WARN if found is None else Level.FAIL,
        found=f"{where}: schema {found or 'none yet'}, this orch wants {wanted}",
        fix="`orch db upgrade`",
    )


def _broker(settings: config.Settings) -> Iterator[Check]:
    state = health.broker(settings)
    if not state.answers:
        yield Check(
            name="broker",
            level=Level.WARN if settings.embedded_broker else Level.FAIL,
            found=f"{state.where} does not answer: {state.why}",
            fix="`orch up -d`" if settings.embedded_broker else "Start it, or set ORCH_BROKER_URL to one that runs.",
        )
        return
    from orchestrator.queue import dispatch  # noqa: PLC0415 - Celery costs 0.2 s

    try:
        with dispatch.Doorbell(settings) as doorbell:
            waiting = sum(doorbell.waiting(Stage).values())
    except errors.OrchError as error:  # a wrong password, a server that is full
        yield _failed("broker", error)
        return
    yield _trusted(settings, f"{state.where}, {waiting} doorbells waiting")


def _trusted(settings: config.Settings, found: str) -> Check:
    """Return the finding of a broker that answers, with a word where TLS does not prove that it is the right one."""
    tls = None if settings.broker_url is None else brokerurl.tls(settings.broker_url.get_secret_value())
    if tls is None or tls.check_hostname:
        return Check(name="broker", level=Level.OK, found=found)
    fix = "Name its CA in ORCH_BROKER_URL with ?ssl_ca_certs=/path, and leave out what turns the check off."
    believed = "for any host" if tls.verify else "from anybody"
    return Check(name="broker", level=Level.WARN, found=f"{found}, and any certificate {believed} is taken", fix=fix)


def _workers(settings: config.Settings) -> Iterator[Check]:
    try:
        with context.opened(settings) as opened:
            workers = query.living(opened.store)
            rows = {worker.id: query.failures(opened.store, worker) for worker in workers}
    except errors.OrchError:
        return  # the database's own line says it
    if not workers:
        yield Check(name="workers", level=Level.WARN, found="none running: jobs wait", fix="`orch up -d`")
    yield from (_worker(worker, rows.get(worker.id), settings) for worker in workers)


def _worker(worker: Worker, failures: str | None, settings: config.Settings) -> Check:
    ours, theirs = _version("orch"), worker.versions.get("orch", "unknown")
    devices = ", ".join(worker.devices) or "no device"
    found = f"{worker.id} {query.standing(worker, settings)}, {devices}, orch {theirs}"
    if query.silent(worker, settings):
        ago = humanize.naturaldelta(worker.silence)
        fix = "Is its host up? What it holds is taken back by any worker that runs."
        return Check(name="worker", level=Level.WARN, found=f"{found}, last heard of {ago} ago", fix=fix)
    if failures is not None:
        fix = (
            "Look at `orch logs` of these jobs, mend what they say, then start the worker anew: "
            "`orch down`, `orch up -d`."
        )
        return Check(name="worker", level=Level.FAIL, found=f"{found}. {failures}", fix=fix)
    if theirs != ours:
        fix = f"Bring both to one version: this is {ours}."
        return Check(name="worker", level=Level.WARN, found=found, fix=fix)
    return Check(name="worker", level=Level.OK, found=found)


def _failed(name: str, error: errors.OrchError) -> Check:
    found = " ".join(part for part in (error.message, error.why) if part)
    return Check(name=name, level=Level.FAIL, found=found, fix=error.hint)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _nvidia_smi() -> list[str] | None:
    if shutil.which(_GPU_QUERY[0]) is None:
        return None
    try:
        done = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()
