"""Finding out why it does not work: each check is one line with a level and a fix, none of them stops the others."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import humanize
from packaging import version

from orchestrator import config, errors
from orchestrator.core import brokerurl
from orchestrator.core import clock as clocks
from orchestrator.core.jobs import Worker
from orchestrator.core.states import Stage
from orchestrator.service import checks, context, files, gpus, health, query, schema
from orchestrator.service.checks import Check, Level
from orchestrator.store.base import Store

#: Less free disk than this is worth a word; a fifth of it is too little for a checkpoint and a data set.
LOW_DISK_BYTES = 10 * 2**30

#: Through it NCCL hands gradients from GPU to GPU; containers get 64 MiB of it, unless told otherwise.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's, and nothing is written there
LITTLE_SHARED_MEMORY_BYTES = 2**30

#: Clocks may differ by so much before it is worth a word. Leases need no clock of any host; the order of jobs, their
#: hours and pauses go by those of whoever submits and claims.
SKEW = timedelta(seconds=5)

_KEEP_TIME = "Let both keep time by NTP: `timedatectl set-ntp true`."

_NOBODY = Check(name="workers", level=Level.WARN, found="none running: jobs wait", fix="`orch up -d`")

#: Packages whose versions decide the bits that a training comes to.
_NUMERIC = ("torch", "torchvision")


def examine(settings: config.Settings, *, clock: clocks.Clock | None = None) -> Iterator[Check]:
    """Yield every finding about this host and what the settings name; `clock` is this host's."""
    for check in (_python, _torch, gpus.examine, _home, _disk, _shared_memory):
        yield from check(settings)
    database = list(_database(settings))
    yield from database
    yield from _broker(settings)
    if any(found.level is Level.WARN for found in database):  # there is none yet, and looking makes none
        yield _NOBODY
    elif all(found.level is Level.OK for found in database):  # asked again, one out of reach takes as long again
        yield from _shared(settings, clock or clocks.SystemClock())


def _python(_: config.Settings) -> Iterator[Check]:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}, orch {checks.version('orch')}"
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
    yield Check(
        name="torch", level=Level.OK, found=f"{checks.version('torch')}, torchvision {checks.version('torchvision')}"
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
    elif kind in files.MEMORY:
        kept = "all jobs and checkpoints" if settings.embedded_database else "checkpoints and logs"
        yield Check(
            name="home",
            level=Level.WARN,
            found=f"{settings.home} on {kind}: {kept} are gone at the next start of this host",
            fix="Set ORCH_HOME to a folder on a disk.",
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
    fix = "For trainings on several GPUs give the container more: `shm_size: 2gb` in Compose, --shm-size=2g."
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
        yield checks.failed("database", error)
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
    from orchestrator.queue import dispatch  # noqa: PLC0415 - redis costs 0.1 s

    doorbell = dispatch.Doorbell(settings)
    try:
        waiting = sum(doorbell.waiting(Stage).values())
        server = doorbell.server()
    except errors.OrchError as error:  # a wrong password, a server that is full
        yield checks.failed("broker", error)
        return
    keeps = "this account may not see how it keeps them"
    if server is not None:
        keeps = "kept on its disk" if server.append_only else "without an append-only file: lost ones are rung again"
    yield _trusted(settings, f"{state.where}, {waiting} doorbells waiting, {keeps}")
    if server is not None and server.policy != "noeviction":
        yield Check(
            name="broker",
            level=Level.FAIL,
            found=f"maxmemory-policy is {server.policy}: when its memory is full it throws doorbells away",
            fix="Set `maxmemory-policy noeviction` in its configuration file, or give orch a server of its own.",
        )


def _trusted(settings: config.Settings, found: str) -> Check:
    """Return the finding of a broker that answers, with a word where TLS does not prove that it is the right one."""
    tls = None if settings.broker_url is None else brokerurl.tls(settings.broker_url.get_secret_value())
    if tls is None or tls.check_hostname:
        return Check(name="broker", level=Level.OK, found=found)
    fix = "Name its CA in ORCH_BROKER_URL with ?ssl_ca_certs=/path, and leave out what turns the check off."
    believed = "for any host" if tls.verify else "from anybody"
    return Check(name="broker", level=Level.WARN, found=f"{found}, and any certificate {believed} is taken", fix=fix)


def _shared(settings: config.Settings, clock: clocks.Clock) -> Iterator[Check]:
    """Yield what is found in the database that all hosts share: its clock, and the workers."""
    try:
        with context.opened(settings) as opened:
            yield from _clock(settings, opened.store, clock)
            workers = query.living(opened.store)
            rows = {worker.id: query.failures(opened.store, worker) for worker in workers}
    except errors.OrchError:
        return  # the database's own line says it
    if not workers:
        yield _NOBODY
    yield from (_worker(worker, rows.get(worker.id), settings) for worker in workers)


def _clock(settings: config.Settings, store: Store, clock: clocks.Clock) -> Iterator[Check]:
    """Compare this host's clock with the database server's; an embedded database has this host's."""
    if settings.embedded_database:
        return
    before = clock.now()
    shared = store.time()
    after = clock.now()
    ahead = before + (after - before) / 2 - shared
    if abs(ahead) <= SKEW + (after - before) / 2:  # no answer tells at which moment of the question it was given
        yield Check(name="clock", level=Level.OK, found="agrees with the database server's")
        return
    told = f"{_rounded(ahead)} {'ahead of' if ahead > timedelta() else 'behind'} the database server's"
    yield Check(name="clock", level=Level.WARN, found=told, fix=_KEEP_TIME)


def _worker(worker: Worker, failures: str | None, settings: config.Settings) -> Check:
    devices = ", ".join(worker.devices) or "no device"
    told = f"{worker.id} {query.standing(worker, settings)}, {devices}, orch {worker.versions.get('orch', 'unknown')}"
    trouble = next(_troubles(worker, failures, settings), None)
    if trouble is None:
        return Check(name="worker", level=Level.OK, found=told)
    level, found, fix = trouble
    return Check(name="worker", level=level, found=f"{told}{found}", fix=fix)


def _troubles(worker: Worker, failures: str | None, settings: config.Settings) -> Iterator[tuple[Level, str, str]]:
    """Yield what is wrong with a worker and what to do, the worst first."""
    if query.silent(worker, settings):
        ago = humanize.naturaldelta(worker.silence)
        fix = "Is its host up? What it holds is taken back by any worker that runs."
        yield Level.WARN, f", last heard of {ago} ago", fix
    if failures is not None:
        fix = (
            "Look at `orch logs` of these jobs, mend what they say, then start the worker anew: "
            "`orch down`, `orch up -d`."
        )
        yield Level.FAIL, f". {failures}", fix
    if worker.versions.get("orch") != checks.version("orch"):
        yield Level.WARN, "", _same_orch(worker)
    for name in _NUMERIC:
        ours, theirs = checks.version(name), worker.versions.get(name)
        if "unknown" not in (ours, theirs or "unknown") and ours != theirs:
            fix = f"On {worker.identity.host}: `pip install {name}=={ours}`, then start the worker anew."
            yield Level.WARN, f", {name} {theirs} and not {ours} as here: a job that goes on there has other bits", fix
    if worker.started_at - worker.beat_at > SKEW:  # the one by its host's clock, the other by the database's
        ahead = _rounded(worker.started_at - worker.beat_at)
        yield Level.WARN, f", whose clock is {ahead} ahead of the database's or more", _KEEP_TIME


def _same_orch(worker: Worker) -> str:
    """Return how this host and a worker come to the same version of orch: whichever is older is upgraded."""
    ours, theirs, host = checks.version("orch"), worker.versions.get("orch"), worker.identity.host
    try:
        older = version.parse(theirs or "") < version.parse(ours)
    except version.InvalidVersion:
        return f"Bring both to one version: this is {ours}."
    if older:
        return f"On {host}: `pip install 'orch[worker]=={ours}'`, then `orch down`, `orch up -d`."
    return f"On this host, which has {ours}: `pip install 'orch=={theirs}'`."


def _rounded(difference: timedelta) -> str:
    return humanize.precisedelta(timedelta(seconds=round(abs(difference.total_seconds()))))
