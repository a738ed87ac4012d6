"""Transactions on one database: per thread, nested ones joined, errors in our words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Connection, Engine, Transaction, exc

from airflow_provider_floe.errors import ConfigurationError, StoreUnavailable
from airflow_provider_floe.stores.sql.forking import ForkGate

WRITE_OPTION = "floe_write"
"""Execution option that marks the connections of write transactions."""

_ABANDONED: list[Connection] = []
"""In a child that was forked in the middle of a transaction: its parent's connections, which it must not touch."""


def _nothing() -> None:
    """A memory database lives in its connection, which is never idle."""


def reason(error: exc.DBAPIError) -> str:
    """What the database said, on one line."""
    return " ".join(str(error.orig).split())


class Database:
    """One database, used by any number of threads.

    :param place: what and where it is, without secrets; opens every error message.
    :param advice: what to check when it does not answer.
    :param shared: whether other processes see it. If not, its single connection serves one thread at a time.
    """

    def __init__(self, engine: Engine, *, place: str, advice: str, shared: bool = True) -> None:
        self.place = place
        self.shared = shared
        self._advice = advice
        self._readers = engine
        self._writers = engine.execution_options(**{WRITE_OPTION: True})
        self._turn: AbstractContextManager[object] = nullcontext() if shared else threading.RLock()
        self._gate = ForkGate(self.close if shared else _nothing)
        self._local = threading.local()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read from, within this thread's transaction if there is one.

        :raises StoreUnavailable: when the database does not answer.
        """
        with self._translating():
            current = self._current()
            if current is not None:
                yield current
            else:
                with self._entered(), self._connected(self._readers) as connection:
                    yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed at the end; inside another one a savepoint, so that each call is all or nothing.

        :raises StoreUnavailable: when the database does not answer.
        """
        with self._translating():
            current = self._current()
            if current is not None:
                with self._ended(current.begin_nested()):
                    yield current
            else:
                with self._entered(), self._connected(self._writers) as connection:
                    self._local.connection = connection
                    try:
                        with self._ended(connection.begin()):
                            yield connection
                    finally:
                        self._local.connection = None

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._readers.dispose()

    def _current(self) -> Connection | None:
        self._refuse_when_torn()
        current: Connection | None = getattr(self._local, "connection", None)
        return current

    def _refuse_when_torn(self) -> None:
        if self._gate.torn:
            raise StoreUnavailable(
                f"this process was forked in the middle of a transaction on {self.place}: "
                "start processes outside of store transactions"
            )

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        connection = engine.connect()
        try:
            yield connection
        finally:
            if self._gate.torn:
                _ABANDONED.append(connection)
            else:
                connection.close()

    @contextmanager
    def _ended(self, transaction: Transaction) -> Iterator[None]:
        """Commit or roll back, unless this is a child that was forked meanwhile: the transaction is its parent's."""
        try:
            yield
        except BaseException:
            if not self._gate.torn:
                transaction.rollback()
            raise
        self._refuse_when_torn()
        transaction.commit()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with self._gate.inside(), self._turn:
            yield

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.InternalError) as error:
            raise StoreUnavailable(self._explain(reason(error))) from error
        except exc.DatabaseError as error:
            if type(error) is not exc.DatabaseError:
                raise
            raise ConfigurationError(
                f"{self.place} is damaged or no database: {reason(error)}; "
                "restore it from a backup, or choose another place"
            ) from error
        except exc.TimeoutError as error:
            raise StoreUnavailable(self._explain("all connections of this process are in use")) from error

    def _explain(self, cause: str) -> str:
        secret = self._readers.url.password
        if secret:
            cause = cause.replace(secret, "***")
        return f"{self.place} did not answer: {cause}. Check {self._advice}"
