"""A PostgreSQL server that is silent, cut off, crashing or busy: every wait ends, and what was asked happens once."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from orchestrator import config, errors
from orchestrator.cli import main
from orchestrator.store import deadline, engine, migrations, sql
from orchestrator.store import postgres as rules
from tests.integration.cli.conftest import Orch
from tests.support import certificates, postgres, proxy
from tests.support.waiting import patiently, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

#: Seconds for what may take `engine.PATIENCE` on a machine that runs other tests beside this one; without a bound there
#: is no end.
GIVEN_UP = 60

PASSWORD = "s3cr3t-pass"  # noqa: S105 - of no server: the tests look for it in what is said


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server of this module's own, with our schema."""
    with postgres.running() as running:
        patiently(migrations.upgrade, running.url)
        yield running


@pytest.fixture
def between(server: postgres.Server) -> Iterator[proxy.Proxy]:
    """A proxy before the server."""
    with proxy.Proxy(server.socket) as running:
        yield running


@pytest.fixture
def there(settings: config.Settings, server: postgres.Server, between: proxy.Proxy) -> config.Settings:
    """Settings that reach the server through the proxy, with a password that nobody may see."""
    url = make_url(server.url_at(between.port)).set(password=PASSWORD).render_as_string(hide_password=False)
    return config.Settings(**{**settings.model_dump(), "database_url": url})


def said_by(work: Callable[[], object]) -> str:
    """Return why the database is said to be out of reach."""
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        work()
    assert PASSWORD not in f"{caught.value.message} {caught.value.why} {caught.value.hint}"
    return str(caught.value.why)


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long it takes until the database is said to be out of reach."""
    began = time.monotonic()
    said_by(work)
    return time.monotonic() - began


def test_a_server_that_hangs_is_given_up_wherever_it_does(server: postgres.Server, there: config.Settings) -> None:
    hang = server.frozen()

    def in_the_middle(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT 1")
        hang.__enter__()

    with closing(patiently(sql.open_store, there)) as store:
        patiently(store.counts)  # a connection lies in the pool
        with server.frozen():
            assert seconds_of(store.counts) < GIVEN_UP
            assert seconds_of(lambda: store.logs("nobody")) < GIVEN_UP  # which may take long, once it has begun
            assert seconds_of(lambda: sql.open_store(there)) < GIVEN_UP
        patiently(store.counts)
        try:
            assert seconds_of(lambda: store.database.write(in_the_middle)) < GIVEN_UP  # at its commit
        finally:
            hang.__exit__(None, None, None)
        patiently(store.counts)


def test_addresses_that_are_silent_share_the_time(between: proxy.Proxy, server: postgres.Server) -> None:
    between.silence()
    addresses = [between.port] * 30  # each of which by itself would be given its 3 s
    with closing(engine.Database(server.url_at(*addresses))) as database:
        assert seconds_of(lambda: database.read(lambda _: None)) < GIVEN_UP


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client wait for the server, which says why it gives up: on a busy machine it might come too late."""
    assert max(rules._SHARES.values()) < 1
    monkeypatch.setattr(deadline, "has_passed", lambda: False)


def test_what_takes_long_may(server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(engine.Database(server.url)) as database:
        began = time.monotonic()
        sleep = f"SELECT pg_sleep({engine.PATIENCE + 0.5})"
        database.write(lambda connection: connection.exec_driver_sql(sleep), patience=engine.LONG_PATIENCE)
        assert time.monotonic() - began > engine.PATIENCE
        be_patient(monkeypatch)
        why = said_by(lambda: database.write(lambda connection: connection.exec_driver_sql(sleep)))
        assert why == "The server did not get done in time."


def test_a_schema_may_be_compared_for_long(server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def slowly(connection: Connection) -> list[object]:
        now[0] += engine.PATIENCE + 1
        connection.exec_driver_sql("SELECT 1")
        return []

    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(migrations, "_differences", slowly)
    migrations.check(server.url)
    assert now[0] > engine.PATIENCE


def test_a_row_that_another_transaction_holds_is_given_up(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch)
    with closing(engine.Database(server.url)) as database, psycopg.connect(server.url) as other:
        other.execute("CREATE TABLE held AS SELECT 1 AS x")
        other.commit()
        other.execute("UPDATE held SET x = 2")
        update = "UPDATE held SET x = 3"
        why = said_by(lambda: database.write(lambda connection: connection.exec_driver_sql(update)))
        assert why == "Another transaction has kept a row locked."
        other.rollback()
        other.execute("DROP TABLE held")


def test_a_client_that_stops_in_a_transaction_lets_go_of_its_locks(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch)
    monkeypatch.setattr("orchestrator.store.postgres.IDLE_SECONDS", 0.5)

    def stop(connection: Connection) -> None:
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        until(lambda: not other.execute(there, [process]).fetchall(), seconds=60)

    with closing(engine.Database(server.url)) as database, psycopg.connect(server.url, autocommit=True) as other:
        assert "idle-in-transaction" in said_by(lambda: database.write(stop))


def test_a_server_that_takes_no_writes_is_out_of_reach(server: postgres.Server) -> None:
    def write(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql("DELETE FROM jobs")

    def process(connection: Connection) -> object:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    with closing(engine.Database(server.url)) as database:
        before = patiently(database.read, process)
        until(lambda: "standby" in said_by(lambda: database.write(write)), seconds=60)
        assert patiently(database.read, process) != before  # another server may be the primary by now


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused_where_that_is_wanted(
    server: postgres.Server, between: proxy.Proxy, mode: str
) -> None:
    with closing(engine.Database(f"{server.url_at(between.port)}?sslmode={mode}")) as database:
        until(lambda: "does not support SSL" in said_by(lambda: database.read(lambda _: None)), seconds=60)


@pytest.mark.parametrize(
    ("authority", "host", "why"),
    [
        ("ours", "localhost", None),
        ("theirs", "localhost", "certificate verify failed"),
        ("ours", "elsewhere", 'does not match host name "localhost"'),
    ],
)
def test_a_certificate_must_be_of_the_named_authority_and_made_out_to_the_host(
    server: postgres.Server, tmp_path: Path, authority: str, host: str, why: str | None
) -> None:
    roots = {name: certificates.authority(tmp_path, name) for name in ("ours", "theirs")}
    tls = certificates.server(tmp_path, roots["ours"], host)
    tls.set_alpn_protocols(["postgresql"])  # the proxy speaks TLS from the first byte on
    with proxy.Proxy(server.socket, tls=tls) as between:
        url = make_url(server.url_at(between.port)).set(host="localhost")
        options = {"sslmode": "verify-full", "sslrootcert": str(roots[authority]), "sslnegotiation": "direct"}
        url = url.set(query={**options, "hostaddr": "127.0.0.1"})
        with closing(engine.Database(url.render_as_string(hide_password=False))) as database:
            if why is None:
                read = patiently(database.read, lambda connection: connection.exec_driver_sql("SELECT 7").scalar())
                assert read == 7
            else:
                until(lambda: why in said_by(lambda: database.read(lambda _: None)), seconds=60)


#: Each command that asks the database; ID stands for a job.
COMMANDS = (
    "submit --data digits",
    "status",
    "status ID",
    "show ID",
    "list",
    "watch ID",
    "logs ID",
    "events ID",
    "wait ID",
    "cancel ID",
    "pause ID",
    "resume ID",
    "retry ID",
    "clone ID --lr 0.1",
    "delete --yes ID",
    "why ID",
    "tag ID --add best",
    "note ID words",
    "priority ID 5",
    "worker list",
    "top",
    "compare ID ID",
    "plot ID",
    "confusion ID",
    "samples ID",
    "predict ID picture.png",
    "evaluate ID --data digits",
    "export ID --format safetensors",
    "extend ID --epochs 9",
    "bundle ID",
    "backup backup.zip",
    "verify-resume ID",
    "gc --dry-run",
    "data list",
    "up -d",
    "db current",
    "db check",
    "db upgrade",
)
#: Those that do not: they need none, use one of their own, or say it among other things.
OTHERS = {"down", "config", "demo", "doctor", "help", "init", "models", "recipes", "reproduce", "restore", "schema"}


def words_of(command: str) -> list[str]:
    return command.replace("ID", "abcdefgh").split()


def check(code: int, said: str) -> None:
    assert code == 4, said
    assert "out of reach" in said
    assert "Traceback" not in said
    assert PASSWORD not in said


def test_every_command_has_its_case() -> None:
    assert {command.split()[0] for command in COMMANDS} | OTHERS == set(main.COMMANDS)


def test_a_server_that_is_away_is_said_by_every_command(
    orch: Orch, there: config.Settings, between: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_DATABASE_URL", there.database)
    between.refuse()
    for command in COMMANDS:
        ran = orch(*words_of(command))
        check(ran.code, ran.err)
        assert ran.out == ""


@pytest.mark.parametrize("command", ["submit --data digits", "cancel ID"])
def test_a_server_that_hangs_is_said_in_time(
    orch: Orch, there: config.Settings, server: postgres.Server, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("ORCH_DATABASE_URL", there.database)
    with server.frozen():
        began = time.monotonic()
        ran = orch(*words_of(command))
    assert time.monotonic() - began < GIVEN_UP
    check(ran.code, ran.err)
