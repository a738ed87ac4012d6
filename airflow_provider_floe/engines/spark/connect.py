"""The route by Spark Connect: the calls are sent from this process, under a session and a tag of their own."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_floe.engines.base import OperationContext
from airflow_provider_floe.engines.spark import job
from airflow_provider_floe.engines.spark.outcome import translated
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable

log = logging.getLogger(__name__)

_JOB_PREFIX = "connect:"
_SESSION_OVER = "INVALID_HANDLE.SESSION_"
"""The server's error class for a session that was closed or has changed."""
_INTERRUPTS = 30
_PORT = 15002
_CONNECT_SECONDS = 20.0
_RETRIES, _LONGEST_BACKOFF_MS = 8, 15_000
"""A server may be away for about a minute; the client's own patience of ten would hold up the task."""
_OLDEST = 4
"""Major version: the client that the Spark provider brings sends what Spark 3.5 cannot read."""


class SessionOver(Exception):
    """The server has closed the session, with all that ran in it."""


class ConnectRoute:
    """Sends the calls to a Spark Connect server.

    :param url: ``sc://host:port/;token=...``; it may hold a token and is never shown.
    :param connection: names the connection in messages.
    """

    name = "Spark Connect"
    java = False

    def __init__(self, url: str, connection: str) -> None:
        self._url = url
        self.connection = connection

    def job(self, request: Mapping[str, Any], context: OperationContext) -> ConnectJob:
        """See :class:`~airflow_provider_floe.engines.spark.route.SparkRoute`."""
        session_id = str(uuid.uuid4())
        return ConnectJob(self._session(session_id), session_id, request, self.connection)

    def probe(self, catalogs: Sequence[str], wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Ask the server, in a session of its own."""
        session = self._session(str(uuid.uuid4()))
        try:
            return job.probe(session, list(catalogs), {name: dict(arguments) for name, arguments in wanted.items()})
        except Exception as error:
            raise translated(_described(error), self.connection) from error
        finally:
            session.stop()

    def cancel(self, job_id: str) -> bool:
        """Interrupt what runs under the job's tag and end its session; a server drops both by itself after a while."""
        session_id, _, tag = job_id.removeprefix(_JOB_PREFIX).rpartition("/")
        try:
            session = self._session(session_id)
        except SessionOver:
            return True
        try:
            for _ in range(_INTERRUPTS):
                if not session.interruptTag(tag):
                    return True
                time.sleep(1.0)
            return False
        finally:
            session.stop()

    def _session(self, session_id: str) -> Any:
        try:
            from pyspark.sql.connect.client.retries import DefaultPolicy
            from pyspark.sql.connect.session import SparkSession
        except ImportError as error:
            raise ConfigurationError(
                f"connection {self.connection!r} needs the client of Spark Connect: pip install 'pyspark-client>=4.0'"
            ) from error
        self._refuse_unreachable()
        url = self._url.rstrip(";")
        url = url if "/;" in url or url.endswith("/") else f"{url}/"
        try:
            session = SparkSession.builder.remote(f"{url};session_id={session_id}").create()
            session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES, max_backoff=_LONGEST_BACKOFF_MS)])
            version = str(session.version)
        except Exception as error:
            if _SESSION_OVER in str(error):
                raise SessionOver from None
            raise EngineUnavailable(
                f"Spark Connect of connection {self.connection!r} does not answer: check host, port, token and TLS of "
                f"the connection, and that the server runs ({type(error).__name__})"
            ) from None  # its text may hold the URL with the token
        if int(version.partition(".")[0]) < _OLDEST:
            session.stop()
            raise ConfigurationError(
                f"connection {self.connection!r} leads to Spark Connect {version}, but its client here speaks to "
                f"Spark {_OLDEST} and newer only: use a connection of type spark (spark-submit) for Spark 3.5"
            )
        return session

    def _refuse_unreachable(self) -> None:
        """The client would try for many minutes."""
        address = urlsplit(self._url)
        try:
            socket.create_connection((address.hostname or "", address.port or _PORT), _CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise EngineUnavailable(
                f"Spark Connect of connection {self.connection!r} does not answer: check its host and port, and that "
                f"the server runs ({error})"
            ) from error


class ConnectJob:
    """A request that a thread of this process sends, and waits for."""

    def __init__(self, session: Any, session_id: str, request: Mapping[str, Any], connection: str) -> None:
        self._session = session
        self._connection = connection
        self._tag = f"floe-{request['operation_id']}"
        self.id = f"{_JOB_PREFIX}{session_id}/{self._tag}"
        self._request = dict(request)
        self._result: Mapping[str, Any] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=self._tag, daemon=True)

    def begin(self) -> None:
        """Send the calls, one after the other."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether the server has answered."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def keep_alive(self) -> None:
        """The client does that itself: a server drops the work of a client that is gone."""

    def stop(self) -> None:
        """Interrupt what runs under our tag; the thread ends with the error that this causes."""
        self._session.interruptTag(self._tag)

    def result(self) -> Mapping[str, Any]:
        """What the calls gave."""
        if self._error is not None:
            raise translated(_described(self._error), self._connection) from self._error
        return self._result

    def clean_up(self) -> None:
        """End the session, with its views."""
        if not self._thread.is_alive():
            self._session.stop()

    def _run(self) -> None:
        try:
            self._session.addTag(self._tag)  # tags belong to the thread
            self._result = job.run(self._session, self._request)
        except BaseException as error:
            self._error = error


def _described(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}
