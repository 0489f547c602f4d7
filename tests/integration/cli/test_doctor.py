"""`orch doctor`: what is wrong is found where it is wrong, and its fix named."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import clock as clocks
from orchestrator.service import audit, careviews, checks, context, doctor, files
from orchestrator.store import base, sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of, living_worker
from tests.support import valkey

Level = checks.Level


def found(name: str, settings: config.Settings, clock: clocks.Clock | None = None) -> list[checks.Check]:
    """Return the doctor's findings of a name; a slow machine makes no worker silent meanwhile."""
    patient = settings.model_copy(update={"heartbeat": 60.0, "lease": 600.0})
    return [check for check in doctor.examine(patient, clock=clock) if check.name == name]


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_what_is_merely_not_started(
    orch: Orch, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MEMORY", frozenset())  # where the homes of tests lie
    heard_of(settings)
    ran = orch("doctor")
    levels = {row[1]: row[0] for row in ran.rows}
    assert ran.code == 0
    assert levels == {
        "python": "ok",
        "torch": "ok",
        "gpu": levels["gpu"],
        "home": "ok",
        "disk": levels["disk"],
        "shared memory": levels["shared memory"],
        "database": "ok",
        "broker": "warn",
        "worker": "ok",
    }
    told = careviews.DoctorPayload.model_validate_json(orch("doctor", "--json").out)
    assert [check.name for check in told.checks] == [row[1] for row in ran.rows]


def test_looking_makes_neither_a_home_nor_a_database(orch: Orch, settings: config.Settings) -> None:
    assert ["warn", "workers", "none running: jobs wait"] in [row[:3] for row in orch("doctor").rows]
    assert not settings.home.exists()


@pytest.mark.usefixtures("store")
def test_doctor_names_the_fix_for_a_container_s_shared_memory(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_SHARED_MEMORY_BYTES", 2**60)
    ((level, _, _, fix),) = [row for row in orch("doctor").rows if row[1] == "shared memory"]
    assert (level, "shm_size" in fix) == ("warn", True)


def test_doctor_fails_for_what_does_not_work_and_masks_secrets(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_DATABASE_URL", "postgresql://ada:canary@127.0.0.1:1/orch")
    monkeypatch.setenv("ORCH_BROKER_URL", "redis://:canary@127.0.0.1:1/0")
    asked: list[object] = []
    monkeypatch.setattr(context, "opened", asked.append)
    ran = orch("doctor")
    assert ran.code == 1
    assert {row[1] for row in ran.rows if row[0] == "fail"} == {"database", "broker"}
    assert asked == []  # a database out of reach is waited for once
    assert "canary" not in ran.out + ran.err


def test_a_home_in_memory_is_warned_of(settings: config.Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="orch-", dir=doctor.SHARED_MEMORY) as home:
        (check,) = found("home", settings.model_copy(update={"home": Path(home)}))
    assert check.level is Level.WARN
    assert "all jobs and checkpoints are gone at the next start" in check.found
    assert "ORCH_HOME" in str(check.fix)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[valkey.Server]:
    with valkey.Server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.mark.usefixtures("store")
def test_a_broker_that_throws_doorbells_away_fails_with_the_setting_that_helps(
    settings: config.Settings, server: valkey.Server
) -> None:
    elsewhere = config.load(home=settings.home, broker_url=server.url)
    (check,) = found("broker", elsewhere)
    assert check.level is Level.OK
    assert "without an append-only file: lost ones are rung again" in check.found
    with server.client() as client:
        client.config_set("appendonly", "yes")
        client.config_set("maxmemory-policy", "allkeys-lru")
    well, bad = found("broker", elsewhere)
    assert (well.level, bad.level) == (Level.OK, Level.FAIL)
    assert "kept on its disk" in well.found
    assert "allkeys-lru" in bad.found
    assert "`maxmemory-policy noeviction`" in str(bad.fix)


def test_a_clock_that_differs_from_the_database_s_is_warned_of(any_settings: config.Settings, clock: HandClock) -> None:
    wrong = found("clock", any_settings, clock)
    right = found("clock", any_settings)
    if any_settings.embedded_database:
        assert wrong == right == []
        return
    assert [check.level for check in right] == [Level.OK]
    assert [check.level for check in wrong] == [Level.WARN]
    assert "the database server's" in wrong[0].found
    assert "NTP" in str(wrong[0].fix)


def test_a_worker_whose_clock_is_ahead_is_warned_of(any_settings: config.Settings) -> None:
    with closing(sql.open_store(any_settings)) as store:
        versions = {"orch": checks.version("orch")}
        ahead = timedelta(minutes=3, seconds=40)  # less what passes until the worker is stored
        store.register(living_worker(versions=versions, started_at=store.time() + ahead))
        (check,) = found("worker", any_settings)
        assert check.level is Level.WARN
        assert "whose clock is 3 minutes and " in check.found
        store.register(living_worker(versions=versions))
        assert [check.level for check in found("worker", any_settings)] == [Level.OK]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("versions", "fix"),
    [
        ({"orch": "0.0.9"}, "On host-a: `pip install 'orch[worker]=={ours}'`, then `orch down`, `orch up -d`."),
        ({"orch": "99.1"}, "On this host, which has {ours}: `pip install 'orch==99.1'`."),
        ({}, "Bring both to one version: this is {ours}."),
        ({"orch": "{ours}", "torch": "1.0"}, "On host-a: `pip install torch=={torch}`, then start the worker anew."),
    ],
    ids=["older", "newer", "unknown", "torch"],
)
def test_a_worker_of_another_version_is_named_with_the_way_to_one(
    versions: dict[str, str], fix: str, settings: config.Settings
) -> None:
    ours = {"ours": checks.version("orch"), "torch": checks.version("torch")}
    identity = parts.identity("worker-a", host="host-a")
    heard_of(settings, identity=identity, versions={name: text.format(**ours) for name, text in versions.items()})
    (check,) = found("worker", settings)
    assert (check.level, check.fix) == (Level.WARN, fix.format(**ours))


def test_an_audit_that_finds_nothing_says_so(orch: Orch, store: base.Store) -> None:
    parts.submit(store)
    assert (orch("doctor", "--audit").code, orch("doctor", "--audit").out) == (0, "")
    assert careviews.AuditPayload.model_validate_json(orch("doctor", "--audit", "--json").out).findings == ()


def test_an_audit_names_what_does_not_hold(
    orch: Orch, store: base.Store, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAUSES", ())
    job = parts.submit(store)
    left = settings.artifact_dir / job.id / "attempt-0001" / "log.txt"
    left.parent.mkdir(parents=True)
    left.touch()
    ran = orch("doctor", "--audit")
    assert ran.code == 1
    assert ran.rows == [["leftover", job.id, f"{job.id}/attempt-0001: no checkpoint is kept in it"]]
    assert "1 promise is broken" in ran.err
    found = careviews.AuditPayload.model_validate_json(orch("doctor", "--audit", "--json").out).findings
    assert [(finding.kind, finding.job) for finding in found] == [("leftover", job.id)]
    assert left.exists()
