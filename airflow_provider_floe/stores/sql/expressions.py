"""What the queries share: times that compare alike on every database, its clock, upserts, documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import BigInteger, ColumnElement, Connection, Dialect, Table, func, select, type_coerce
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from airflow_provider_floe.errors import ConfigurationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOCK_CLASS = 0x464C4F45
"""First key of our PostgreSQL advisory locks ("FLOE"), so that they meet nobody else's."""

Doc = TypeVar("Doc", bound=BaseModel)


class UtcMicros(TypeDecorator[datetime]):
    """A point in time as microseconds since 1970 UTC: exact, ordered, and free of the database's time zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Aware datetime to microseconds.

        :raises ValueError: for a naive datetime.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the Floe store takes aware times only: {value!r} has no time zone")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Microseconds to a datetime in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class _DatabaseMicros(FunctionElement[int]):
    type = BigInteger()
    inherit_cache = True


@compiles(_DatabaseMicros, "sqlite")
def _sqlite_micros(element: _DatabaseMicros, compiler: SQLCompiler, **kwargs: Any) -> str:
    return (
        "(CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000)"
    )


@compiles(_DatabaseMicros, "postgresql")
def _postgresql_micros(element: _DatabaseMicros, compiler: SQLCompiler, **kwargs: Any) -> str:
    # not now(), which stands still during a transaction, so that a long one would keep an expired lease
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"


def database_time(offset: timedelta = timedelta()) -> ColumnElement[datetime]:
    """The database's clock at execution plus an offset, as an SQL expression."""
    return type_coerce(_DatabaseMicros() + offset // _MICROSECOND, UtcMicros)


def read_clock(connection: Connection) -> datetime:
    """The database's clock now, UTC."""
    found: datetime = connection.execute(select(database_time())).scalar_one()
    return found


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """``INSERT`` that understands ``ON CONFLICT`` on this connection's database."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def written(connection: Connection, statement: sqlite.Insert | postgresql.Insert) -> bool:
    """Whether an ``INSERT ... ON CONFLICT`` of one row wrote it."""
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount == 1


def insert_new(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert one row; False, with nothing changed, when its key is there already."""
    return written(connection, upsert(connection, table).values(values).on_conflict_do_nothing())


def serialise(connection: Connection, key: int) -> None:
    """Let only one transaction at a time go on from here, until it ends; SQLite's write transactions are so already."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, key)))


def dump(document: BaseModel) -> str:
    """A document as it is stored."""
    return document.model_dump_json()


def load(model: type[Doc], text: str) -> Doc:
    """A document as it was stored.

    :raises ConfigurationError: when another version of this package wrote it in a form that this one cannot read.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"the Floe store holds a {model.__name__} that this version cannot read: {where}: {first['msg']}; "
            "use the airflow-provider-floe version that wrote it, or a newer one"
        ) from error
