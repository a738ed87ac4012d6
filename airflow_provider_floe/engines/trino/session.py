"""Runs statements on Trino, keeps watch over them, and cancels them for good."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Any

from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.failures import CLIENT_ERRORS, translate
from airflow_provider_floe.errors import FloeError

log = logging.getLogger(__name__)

_FIRST_LOOK, _LOOK = 0.02, 0.5
_CANCEL_SECONDS = 15.0
_OVER = ("FINISHED", "FAILED")


@dataclass(frozen=True)
class Done:
    """A statement that came to its end.

    :ivar rows: what it returned; table procedures of older servers return nothing.
    :ivar info_uri: the query's page in Trino's UI.
    """

    query_id: str
    rows: list[list[Any]]
    info_uri: str | None

    @property
    def reported(self) -> dict[str, Any]:
        """The numbers that table procedures of newer servers return, by name."""
        return {str(row[0]): row[1] for row in self.rows if len(row) == 2}


class Session:
    """A connection to Trino. Leaving its block closes it.

    :param connect: opens a connection of Trino's Python client.
    :param connection: id of the Airflow connection, for messages.
    """

    def __init__(self, connect: Callable[[], Any], connection: str) -> None:
        self._connect = connect
        self.connection = connection

    def __enter__(self) -> Session:
        try:
            self._open = self._connect()
        except CLIENT_ERRORS as error:
            raise translate(error, self.connection) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def rows(self, statement: str) -> list[list[Any]]:
        """All rows of a short query.

        :raises FloeError: see :func:`~airflow_provider_floe.engines.trino.failures.translate`.
        """
        try:
            found: list[list[Any]] = self._open.cursor().execute(statement).fetchall()
            return found
        except CLIENT_ERRORS as error:
            raise translate(error, self.connection) from error

    def run(
        self, statement: str, *, submitted: Callable[[str], None], waiting: Callable[[dict[str, Any]], None]
    ) -> Done:
        """Run a long statement to its end.

        :param submitted: called once with the query's id, as soon as the server has given it.
        :param waiting: called again and again with the query's statistics. What either raises cancels the query, as
            do signals; the exception goes on when the query is gone from the server.
        :raises FloeError: see :func:`~airflow_provider_floe.engines.trino.failures.translate`.
        """
        attempt = _Attempt(self._open.cursor(), statement)
        told = False
        try:
            attempt.start()
            while not attempt.over.wait(_LOOK if told else _FIRST_LOOK):
                if not told and attempt.query_id:
                    told = True
                    submitted(attempt.query_id)
                waiting(dict(attempt.cursor.stats or {}))
        except BaseException:
            self._abandon(attempt)
            raise
        if attempt.error is not None:
            raise translate(attempt.error, self.connection) from attempt.error
        if not told:
            submitted(attempt.query_id or "")
        return Done(attempt.query_id or "", attempt.rows, attempt.cursor.info_uri)

    def state(self, query_id: str) -> str | None:
        """The query's state; None when the server does not know it, as after a restart.

        :raises FloeError: when the server does not answer.
        """
        found = self.rows(f"SELECT state FROM system.runtime.queries WHERE query_id = {sql.text(query_id)}")
        return str(found[0][0]) if found else None

    def cancel(self, query_id: str) -> bool:
        """Kill a query by its id, from whatever process.

        :returns: whether it is over by then.
        """
        give_up = time.monotonic() + _CANCEL_SECONDS
        while (state := self.state(query_id)) not in (None, *_OVER):
            try:
                self.rows(f"CALL system.runtime.kill_query({sql.text(query_id)}, 'cancelled by Floe')")
            except FloeError as error:
                log.info("query %s was not killed: %s", query_id, error)  # it may have ended by itself
            if time.monotonic() > give_up:
                log.error("query %s is still %s: kill it on the server", query_id, state)
                return False
            time.sleep(0.1)
        return True

    def _abandon(self, attempt: _Attempt) -> None:
        """Cancel, and wait until the server has let go of the query."""
        give_up = time.monotonic() + _CANCEL_SECONDS
        while attempt.query_id is None and not attempt.over.wait(_FIRST_LOOK) and time.monotonic() < give_up:
            pass  # the request that submits it is under way
        if attempt.query_id is None:
            return
        try:
            self.cancel(attempt.query_id)
        except FloeError as error:
            log.error("query %s may still run, kill it on the server: %s", attempt.query_id, error)


class _Attempt(Thread):
    """One statement, fetched to its end in a thread of its own: the client offers no way to wait for a while."""

    def __init__(self, cursor: Any, statement: str) -> None:
        super().__init__(name="floe-trino", daemon=True)
        self.cursor = cursor
        self._statement = statement
        self.over = Event()
        self.rows: list[list[Any]] = []
        self.error: Exception | None = None

    @property
    def query_id(self) -> str | None:
        """None until the server has answered for the first time."""
        found: str | None = self.cursor.query_id
        return found

    def run(self) -> None:
        try:
            self.rows = self.cursor.execute(self._statement).fetchall()
        except Exception as error:
            self.error = error
        finally:
            self.over.set()
