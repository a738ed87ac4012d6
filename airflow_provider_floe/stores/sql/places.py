"""Where a SQL store can be: a PostgreSQL database, a SQLite file, this process's memory."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import StaticPool

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.stores.sql.database import WRITE_OPTION, Database
from airflow_provider_floe.stores.sql.store import SqlStore

_BUSY_SECONDS = 30
"""How long a writer waits for others."""
_IDLE_SECONDS = 300
"""How long a transaction may do nothing before PostgreSQL ends it: its process may be gone without a word."""
_CONNECT_SECONDS = "10"
_POSTGRESQL_DRIVERS = ("psycopg2", "psycopg")


def open_sqlite(url: str) -> SqlStore:
    """A SQLite file; it and missing folders are created, readable for this user only.

    :raises ConfigurationError: when the URL has no absolute path; and when the file is no database.
    """
    parsed = _parse(url)
    if parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("a SQLite Floe store needs a file, sqlite:////path/floe.db; in memory it is memory://")
    path = Path(str(parsed.database))
    if not path.is_absolute():
        raise ConfigurationError(
            f"sqlite:///{path} is relative, so each process would open its own file: write sqlite:///{path.absolute()}"
        )
    _create_file(path)
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": _BUSY_SECONDS},
        hide_parameters=True,
    )
    _explicit_transactions(engine)
    event.listen(engine, "connect", _file_pragmas)
    return SqlStore(
        Database(
            engine,
            place=f"SQLite file {path}",
            advice="that the folder and the file are writable for this user, on a local disk that is not full",
        )
    )


def open_memory(url: str) -> SqlStore:
    """A new, empty store in this process's memory; gone when it is closed.

    :raises ConfigurationError: when the URL is not exactly ``memory://``.
    """
    if url.lower() != "memory://":
        raise ConfigurationError("the memory store takes no place or options: write memory://")
    engine = create_engine(
        "sqlite+pysqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}, hide_parameters=True
    )
    _explicit_transactions(engine)
    return SqlStore(
        Database(engine, place="memory of this process", advice="that the store was not closed before", shared=False)
    )


def open_postgresql(url: str) -> SqlStore:
    """A PostgreSQL database, through psycopg2 unless the URL says ``postgresql+psycopg``.

    :raises ConfigurationError: when the URL names no database or a driver that is not supported or not installed.
    """
    parsed = _parse(url)
    _, _, driver = parsed.drivername.partition("+")
    driver = driver or "psycopg2"
    if driver not in _POSTGRESQL_DRIVERS:
        raise ConfigurationError(
            f"driver {driver!r} of the Floe store's URL is not supported: use one of {', '.join(_POSTGRESQL_DRIVERS)}"
        )
    if not parsed.database:
        raise ConfigurationError(
            "the Floe store's URL names no database: write postgresql://user:password@host/database"
        )
    parsed = parsed.set(drivername=f"postgresql+{driver}")
    if "connect_timeout" not in parsed.query:
        parsed = parsed.update_query_dict({"connect_timeout": _CONNECT_SECONDS})
    try:
        engine = create_engine(
            parsed,
            # a stale connection is replaced before it is used, for example after the server restarted
            pool_pre_ping=True,
            # each statement after a wait for a lock must see what the others committed
            isolation_level="READ COMMITTED",
            hide_parameters=True,
        )
    except ImportError as error:
        raise ConfigurationError(
            f"driver {driver!r} of the Floe store is not installed: pip install {driver}"
        ) from error
    event.listen(engine, "begin", _limit_waits)
    host = parsed.host or "local socket"
    place = f"PostgreSQL database {parsed.database} on {host}:{parsed.port or 5432}"
    return SqlStore(
        Database(engine, place=place, advice="that the server runs and accepts this host, user, password and database")
    )


def _limit_waits(connection: Connection) -> None:
    """Neither wait nor block others for ever. For this transaction only, since a pooler may share the session."""
    if connection.get_execution_options().get(WRITE_OPTION):
        connection.exec_driver_sql(
            f"SELECT set_config('lock_timeout', '{_BUSY_SECONDS}s', true),"
            f" set_config('idle_in_transaction_session_timeout', '{_IDLE_SECONDS}s', true)"
        )


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (exc.ArgumentError, ValueError):
        # the library's message would quote the URL, password included
        raise ConfigurationError(
            "the Floe store's URL cannot be read; percent-encode special characters in user and password"
        ) from None


def _create_file(path: Path) -> None:
    try:
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"the Floe store's SQLite file {path} cannot be opened: {error.strerror}; "
            "choose a path that this user may create and write"
        ) from error


def _explicit_transactions(engine: Engine) -> None:
    """Leave BEGIN to us: the driver's own comes too late and cannot be immediate."""

    @event.listens_for(engine, "connect")
    def _no_driver_transactions(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # a transaction that turns from reading to writing could fail without waiting, so writers start as such
        writes = connection.get_execution_options().get(WRITE_OPTION)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _file_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself when several connections switch to WAL at once
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    # the journal must be on disk before files are deleted, also when the power fails
    connection.execute("PRAGMA synchronous = FULL")
