"""`--batch-size auto`: decided once, from what the memory is, and refused where that is not known."""

import dataclasses
import socket
from contextlib import closing

import pytest

from orchestrator import config, errors
from orchestrator.core import jobs, memory, specs
from orchestrator.service import batches, jobfile
from orchestrator.store import engine, sql
from tests.unit.orchestrator.service.test_advice import worker

FIELDS = {"data": "digits", "network": "densenet121", "image_size": 64, "batch_size": "auto"}


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """The memory of this host: so much that a training may have what a batch of 32 takes in the plain mode."""
    spec = specs.parse({**FIELDS, "batch_size": 32})
    size = round(memory.peak(spec, mode="plain") / batches.SHARE) + 1
    monkeypatch.setattr(batches, "_memory", lambda: size)
    monkeypatch.setattr(socket, "gethostname", lambda: "h")
    return size


def batch(settings: config.Settings, **fields: object) -> int:
    return jobfile.resolve(flags={**FIELDS, **fields}, settings=settings).spec.batch_size


@pytest.mark.usefixtures("room")
def test_the_batch_is_the_largest_that_fits_and_a_number_from_then_on(settings: config.Settings) -> None:
    resolved = jobfile.resolve(flags=FIELDS, settings=settings)
    assert resolved.spec.batch_size == 32
    assert resolved.origins["batch_size"].startswith("flag, auto: the largest power of two up to 128 that fits into")
    assert batch(settings, memory="lean") > 32  # what is kept decides
    assert batch(settings, image_size=128) == 8
    assert batch(settings, gpus="2") == 64  # each of the two has a slot, and half of the pictures
    assert resolved.spec.lr == specs.JobSpec().lr
    file = jobfile.parse(b'batch_size = "auto"', origin="job.toml")
    in_file = jobfile.resolve(flags={"image_size": 64}, file=file, settings=settings)
    assert (in_file.spec.batch_size, in_file.spec.image_size) == (32, 64)


@pytest.mark.usefixtures("room")
def test_a_database_of_another_orch_is_done_without(store: sql.SqlStore, settings: config.Settings) -> None:
    store.register(dataclasses.replace(worker("cpu"), identity=identity("v", "h")))
    with closing(engine.Database(settings.database)) as database:
        database.write(lambda it: it.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    assert batch(settings) == 32


@pytest.mark.usefixtures("room")
def test_slots_share_the_memory(store: sql.SqlStore, settings: config.Settings) -> None:
    store.register(worker("cpu"))
    assert batch(settings) == 32
    store.register(dataclasses.replace(worker("cpu"), identity=identity("v", "h")))
    assert batch(settings) == 8  # half of the memory, and the process itself takes a part of each


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize(("device", "host"), [("GPU-1", "h"), ("cpu", "elsewhere")])
def test_what_cannot_be_known_is_refused(
    store: sql.SqlStore, settings: config.Settings, device: str, host: str
) -> None:
    store.register(dataclasses.replace(worker(device), identity=identity("w", host)))
    with pytest.raises(errors.InvalidSpec, match="cannot be known"):
        batch(settings)
    assert batch(settings, batch_size=4) == 4


def test_a_host_that_is_too_small_says_so(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_memory", lambda: 2**29)
    with pytest.raises(errors.InvalidSpec, match="not even a batch of two fits"):
        batch(settings)


def identity(name: str, host: str) -> jobs.WorkerIdentity:
    return dataclasses.replace(worker("cpu").identity, id=name, host=host)
