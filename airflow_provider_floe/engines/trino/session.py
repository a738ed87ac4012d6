"""Sends statements to Trino, fetches what it says of them step by step, and cancels them for good."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from trino.exceptions import TrinoQueryError

from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.failures import CLIENT_ERRORS, translate
from airflow_provider_floe.errors import FloeError

log = logging.getLogger(__name__)

_CANCEL_SECONDS = 15.0
OVER = ("FINISHED", "FAILED")
"""States of a query that does not run any more."""
_CONSUMED = (404, 410)


class TokenConsumed(Exception):
    """What an address led to was fetched, and the next one too; or the server does not know the query any more."""


@dataclass(frozen=True)
class Answer:
    """What the server said of a statement.

    :ivar next_uri: where it says more; None when the statement is over.
    :ivar rows: what it returned with this answer.
    :ivar error: why it failed, in Trino's own words.
    """

    query_id: str
    info_uri: str | None
    next_uri: str | None
    statistics: dict[str, Any] = field(default_factory=dict)
    rows: list[list[Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None


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

    def send(self, statement: str) -> Answer:
        """Register a statement. The server begins with it only when the answer's ``next_uri`` is fetched.

        :raises FloeError: see :func:`~airflow_provider_floe.engines.trino.failures.translate`.
        """
        request = self._request()
        return self._answer("", request, lambda: request.post(statement))

    def fetch(self, query_id: str, next_uri: str) -> Answer:
        """Ask how a statement stands; the server takes a second at most. Asking the same again is answered the same.

        :raises TokenConsumed: when somebody has fetched further, or the query is not known any more.
        :raises FloeError: see :func:`~airflow_provider_floe.engines.trino.failures.translate`.
        """
        request = self._request()
        return self._answer(query_id, request, lambda: request.get(next_uri))

    def _request(self) -> Any:
        """The client's own request, with its credentials; the client offers no other way to fetch step by step."""
        return self._open._create_request()

    def _answer(self, query_id: str, request: Any, ask: Callable[[], Any]) -> Answer:
        try:
            response = ask()
            if response.status_code in _CONSUMED:
                raise TokenConsumed(f"{query_id}: {response.status_code}")
            status = request.process(response)
        except TrinoQueryError as error:
            told = {"errorName": error.error_name, "errorType": error.error_type, "message": error.message}
            return Answer(error.query_id or query_id, None, None, error=told)
        except CLIENT_ERRORS as error:
            raise translate(error, self.connection) from error
        rows = status.rows if isinstance(status.rows, list) else []  # large results come otherwise; ours are small
        return Answer(status.id, status.info_uri, status.next_uri, dict(status.stats), rows)

    def state(self, query_id: str) -> tuple[str, dict[str, Any] | None] | None:
        """The query's state, and its error; None when the server does not know it, as after a restart.

        :raises FloeError: when the server does not answer.
        """
        found = self.rows(
            f"SELECT state, error_code, error_type FROM system.runtime.queries WHERE query_id = {sql.text(query_id)}"
        )
        if not found:
            return None
        state, name, kind = found[0]
        error = {"errorName": name, "errorType": kind, "message": "the query failed"} if state == "FAILED" else None
        return str(state), error

    def cancel(self, query_id: str) -> bool:
        """Kill a query by its id, from whatever process.

        :returns: whether it is over by then.
        """
        give_up = time.monotonic() + _CANCEL_SECONDS
        while (known := self.state(query_id)) is not None and known[0] not in OVER:
            try:
                self.rows(f"CALL system.runtime.kill_query({sql.text(query_id)}, 'cancelled by Floe')")
            except FloeError as error:
                log.info("query %s was not killed: %s", query_id, error)  # it may have ended by itself
            if time.monotonic() > give_up:
                log.error("query %s is still %s: kill it on the server", query_id, known[0])
                return False
            time.sleep(0.1)
        return True
