"""PostgreSQL: connections on which nobody waits for ever, and what its errors mean to people."""

from collections.abc import Generator
from typing import Any, Self, TypeVar

import psycopg
import sqlalchemy
from psycopg import abc
from sqlalchemy.engine import URL, Engine, ExceptionContext

from orchestrator.store import deadline, jobmodels

jobmodels.jobs_due.dialect_options["postgresql"]["where"] = sqlalchemy.text("blocked")

#: Seconds until a server that acknowledges nothing is given up by the kernel.
NETWORK_SECONDS = 3

#: Seconds that the server waits for a client in the middle of a transaction: its locks are in everybody's way.
IDLE_SECONDS = 10

#: What the server's codes mean: why, and what to do. https://www.postgresql.org/docs/current/errcodes-appendix.html
ADVICE = {
    "25006": (
        "The server takes no writes: it is a standby, or was set to read-only.",
        "Let database_url name the primary: postgresql://…@one,two/orch?target_session_attrs=read-write finds it.",
    ),
    "53100": ("The server's disk is full.", "Free some space on it; nothing was written."),
    "53300": ("The server has no connection left.", "Raise its max_connections, or let fewer programs use it."),
    "55P03": ("Another transaction has kept a row locked.", "Try again."),
    "57014": ("The server did not get done in time.", "Try again; if it stays so, see what keeps the server busy."),
}

#: Which part of the client's time the server has: it gives up first, for it can say why.
_SHARES = {"lock_timeout": 0.8, "statement_timeout": 0.9}

_IDLE = "idle_in_transaction_session_timeout"

T = TypeVar("T")
Y = TypeVar("Y")
R = TypeVar("R")


class Silence(psycopg.OperationalError):
    """The server did not answer in time."""


class Connection(psycopg.Connection[Any]):
    """A connection that is closed where the server is silent beyond the deadline of its thread's transaction.

    No timeout of the kernel's notices a server that hangs: its own kernel goes on acknowledging what is sent.
    """

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> abc.PQGenConn[Self]:
        return _in_time(super()._connect_gen(*args, **kwargs))

    def wait(self, gen: abc.PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Let the driver wait for the server, no longer than the deadline allows."""
        try:
            return super().wait(_in_time(gen), *args, **kwargs)
        except Silence:
            self.close()  # an answer that comes after all would be taken for that to the next question
            raise


def _in_time(waiting: Generator[Y, R, T]) -> Generator[Y, R, T]:
    """Relay between the driver's loop, which looks at least ten times a second, and what waits in it."""
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            wanted = waiting.send(ready)
            if deadline.has_passed():
                waiting.close()
                raise Silence("It did not answer in time.")
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of a generator, which the annotation names


def engine(url: URL, *, patience: float) -> Engine:
    """Return the engine of a server whose statements, and waits for a lock, may take `patience` seconds each."""
    defaults = {
        "connect_timeout": str(NETWORK_SECONDS),
        "tcp_user_timeout": str(1000 * NETWORK_SECONDS),
        "client_encoding": "utf8",  # a database in SQL_ASCII would have the driver return bytes
    }
    limits = {**_limits(patience), _IDLE: round(1000 * IDLE_SECONDS)}
    # A recursion looks long to the server, and a claim has two: to compile it takes longer than to run it.
    words = ["-c jit=off", *(f"-c {name}={milliseconds}" for name, milliseconds in limits.items())]
    given = {**defaults, **url.query}
    given["options"] = " ".join([*words, str(given.get("options", ""))])  # of two words on one setting the last counts
    made = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg").set(query=given), pool_pre_ping=True)
    sqlalchemy.event.listen(made, "do_connect", _connect)
    sqlalchemy.event.listen(made, "handle_error", _look_for_the_primary)
    return made


def allow(connection: sqlalchemy.Connection, seconds: float) -> None:
    """Let this transaction take longer than the engine's others."""
    for name, milliseconds in {**_limits(seconds), _IDLE: round(1000 * seconds)}.items():
        connection.exec_driver_sql(f"SET LOCAL {name} = {milliseconds}")


def _limits(seconds: float) -> dict[str, int]:
    return {name: round(1000 * share * seconds) for name, share in _SHARES.items()}


def _look_for_the_primary(context: ExceptionContext) -> None:
    """Let go of all connections to a server that takes no writes any more: new ones may be to another one."""
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True


def _connect(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> Connection:
    return Connection.connect(*arguments, **parameters)
