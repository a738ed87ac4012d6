"""What goes wrong between us and Trino, in words that name the connection and what to check."""

from __future__ import annotations

import requests
from trino.exceptions import Error, HttpError, TrinoAuthError, TrinoQueryError

from airflow_provider_floe.errors import CommitConflict, ConfigurationError, EngineFailed, EngineUnavailable, FloeError

CLIENT_ERRORS = (Error, HttpError, requests.exceptions.RequestException, OSError)
"""Everything that Trino's client raises."""

_CONFLICTS = frozenset({"ICEBERG_COMMIT_ERROR", "TRANSACTION_CONFLICT"})
_TRANSIENT = frozenset({"INSUFFICIENT_RESOURCES", "EXTERNAL"})
_DENIED = ("error 401", "error 403")


class ConnectionLost(EngineUnavailable):
    """The connection broke while a query ran; whether the query ended is not known."""


class QueryFailed(EngineFailed):
    """A query failed.

    :ivar error_name: Trino's name of the error, such as ``NOT_SUPPORTED``.
    """

    def __init__(self, message: str, error_name: str | None) -> None:
        super().__init__(message)
        self.error_name = error_name


def translate(error: Exception, connection: str) -> FloeError:
    """The error as ours.

    :param connection: id of the Airflow connection.
    """
    if isinstance(error, FloeError):
        return error
    if isinstance(error, TrinoQueryError):
        return _of_query(error, connection)
    if isinstance(error, TrinoAuthError) or (isinstance(error, HttpError) and str(error).startswith(_DENIED)):
        return ConfigurationError(
            f"Trino refused the credentials of connection {connection!r} ({_first_line(error)}): check its login and "
            "password, and auth and protocol in its extra"
        )
    if isinstance(error, CLIENT_ERRORS):
        return ConnectionLost(
            f"Trino does not answer on connection {connection!r} ({_first_line(error)}): check its host, port and "
            "protocol, and that the server is up"
        )
    return EngineFailed(f"Trino on connection {connection!r}: {type(error).__name__}: {_first_line(error)}")


def _of_query(error: TrinoQueryError, connection: str) -> FloeError:
    words = f"{error.message} ({error.error_name}, query {error.query_id}, connection {connection!r})"
    match error.error_name:
        case "CATALOG_NOT_FOUND" | "CATALOG_NOT_AVAILABLE":
            return ConfigurationError(
                f"{words}: name a catalog that the server has in floe_catalogs, in the connection's extra"
            )
        case "SCHEMA_NOT_FOUND" | "TABLE_NOT_FOUND":
            return ConfigurationError(
                f"{words}: Trino does not see the table. Check floe_catalogs in the connection's extra, and on the "
                "server nested namespaces and case-insensitive name matching"
            )
        case "PERMISSION_DENIED":
            return ConfigurationError(f"{words}: grant this to the connection's user")
        case found if found in _CONFLICTS:
            return CommitConflict(f"Trino gave up, because others kept committing first: {words}")
    if error.error_type in _TRANSIENT:
        return EngineUnavailable(f"Trino could not finish the query: {words}")
    return QueryFailed(f"Trino could not carry the statement out: {words}", error.error_name)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
