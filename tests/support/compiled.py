"""Statements that SQLAlchemy has compiled for one database, for all others of its kind in this process as well.

A test has a database of its own, and to compile what it asks would take a third of its time.
"""

from typing import Any

import sqlalchemy
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.dialects.sqlite import pysqlite


def share() -> None:
    """Let every engine that is made from now on find what those before it have compiled."""
    made, known = sqlalchemy.create_engine, dict[Any, Any]()

    def create_engine(*args: Any, **named: Any) -> Any:
        return made(*args, **named, execution_options={"compiled_cache": known})

    vars(sqlalchemy)["create_engine"] = create_engine
    for kind in (pysqlite.SQLiteDialect_pysqlite, psycopg.PGDialect_psycopg):
        # What is compiled is found by its dialect, of which each engine has its own.
        setattr(kind, "__eq__", lambda self, other: type(self) is type(other))  # noqa: B010 - to mypy it is a method
        setattr(kind, "__hash__", lambda self: hash(type(self)))  # noqa: B010 - as that
