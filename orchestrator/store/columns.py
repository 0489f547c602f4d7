"""What tables are made of: names of constraints, and column types, the same on SQLite and PostgreSQL."""

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Double, Enum, Integer, MetaData, String, Text, TypeDecorator

from orchestrator.core import ids

#: Where every table is, once `store.models` is imported.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Compared byte by byte on both databases, so that a range over the index finds a prefix.
JobId = String(ids.LENGTH).with_variant(String(ids.LENGTH, collation="C"), "postgresql")

#: SQLite numbers rows by itself in a column of the type INTEGER only.
Sequence = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite, which has no time zones, keeps it as text that sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into UTC; raises ValueError for a naive one, which could mean anything."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware moment in UTC, whatever the session's time zone is."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Measure(TypeDecorator[float]):
    """A measured number that may be NaN, which SQLite cannot store: NULL stands for it."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """Turn NaN into NULL."""
        del dialect
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        """Turn NULL back into NaN."""
        del dialect
        return math.nan if value is None else value


class ForeignText(TypeDecorator[str]):
    """Text that other programs wrote. PostgreSQL refuses NUL and lone surrogates: they become U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what cannot be stored."""
        del dialect
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode(errors="surrogatepass").decode(errors="replace")


def choice(members: type[StrEnum], name: str) -> Enum:
    """Return the type of a column that holds one member's value; `name` is its CHECK constraint's."""
    return Enum(members, values_callable=_values, native_enum=False, length=24, create_constraint=True, name=name)


def _values(members: Any) -> list[str]:
    return [member.value for member in members]
