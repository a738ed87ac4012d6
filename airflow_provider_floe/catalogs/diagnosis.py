"""What to do about a catalog that does not answer as it should: the connection's field, and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    ForbiddenError,
    OAuthError,
    RESTError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from requests import ConnectionError as NoConnection
from requests import RequestException, Response, Timeout
from requests.exceptions import SSLError
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_floe.catalogs.base import ConnectionFields

_DENIED = (UnauthorizedError, ForbiddenError, AuthorizationExpiredError)
_BUSY = (TooManyRequestsError, ServiceUnavailableError)


def advice(connection: ConnectionFields, properties: Mapping[str, str], server: str, error: Exception) -> str:
    """What to check or change, in one sentence.

    :param properties: what the connection became for pyiceberg.
    :param server: where the catalog is, as it may be shown.
    """
    if isinstance(error, SQLAlchemyError):
        return _of_sql(connection, server, str(error))
    if isinstance(error, RequestException):
        return _of_network(connection, properties, server, error)
    response = _response(error)
    if isinstance(error, _BUSY):
        wait = response.headers.get("Retry-After") if response is not None else None
        asked = f" and asks to be left alone for {wait} (seconds or date)" if wait else ""
        return f"{server} is busy{asked}: try again later"
    if "MissingOrInvalidRealm" in str(error):
        place = "the extra" if connection.conn_type == "iceberg" else "field 'properties'"
        return f"correct 'header.Polaris-Realm' in {place}: {server} has no such realm"
    if isinstance(error, OAuthError) or (response is not None and _is_token_request(properties, response.url)):
        return _of_sign_in(connection, properties, response, str(error))
    if isinstance(error, _DENIED):
        return _of_denial(connection, properties, error)
    return _of_answer(connection, server, str(error)) or _in_general(connection, server, error)


def uri_field(connection: ConnectionFields) -> str:
    """The field that says where the catalog is."""
    return "uri" if _given(connection, "uri") else "host"


def is_of_metastore(error: Exception) -> bool:
    """Whether a Hive metastore, or the way to it, is the matter."""
    return type(error).__module__.partition(".")[0] in ("thrift", "hive_metastore")


def _of_network(
    connection: ConnectionFields, properties: Mapping[str, str], server: str, error: RequestException
) -> str:
    asked = str(error.request.url) if error.request is not None else ""
    field, place = uri_field(connection), server
    if _is_token_request(properties, asked) and _given(connection, "oauth2_server_uri"):
        field, place = "oauth2_server_uri", properties["oauth2-server-uri"]
    reasons = str(error)
    if isinstance(error, SSLError):
        return f"check the scheme (http or https) and the certificate of {place} in field {field!r}"
    if re.search(r"NameResolution|Name or service|nodename|getaddrinfo", reasons):
        return f"correct the host in field {field!r}: {place} cannot be resolved"
    if isinstance(error, Timeout):
        return f"check that {place} of field {field!r} is up and can be reached from here: it did not answer in time"
    if isinstance(error, NoConnection):
        return f"check that the server of {place} runs, and host and port in field {field!r}"
    return f"check field {field!r}: {place}"


def _of_sign_in(
    connection: ConnectionFields, properties: Mapping[str, str], response: Response | None, told: str
) -> str:
    place = response.url if response is not None else properties.get("oauth2-server-uri", "the catalog")
    if "invalid_scope" in told:
        return f"correct field 'scope': {place} does not grant {properties.get('scope', 'the default scope')!r}"
    if re.search(r"(?i)invalid_client|unauthorized|invalid_grant|NotAuthorized", told):
        return f"correct {_credential_fields(connection)}: {place} refused them"
    return (
        f"set field 'oauth2_server_uri' to the token endpoint of the catalog or of its identity provider: {place} gave "
        "no token"
    )


def _of_denial(connection: ConnectionFields, properties: Mapping[str, str], error: Exception) -> str:
    if "token" in properties:
        return (
            f"correct field {_token_field(connection)!r}: the token is wrong, has expired or lacks rights; get a new "
            "one, or give client id and secret in 'login' and 'password', which fetch tokens themselves"
        )
    if "credential" not in properties and "auth" not in properties and not properties.get("rest.sigv4-enabled"):
        return (
            "the catalog demands a sign-in: give client id and secret in fields 'login' and 'password', or a token as "
            "'password' without 'login'"
        )
    if isinstance(error, ForbiddenError):
        return (
            f"the sign-in of {_credential_fields(connection)} lacks rights: grant them in the catalog, or ask for more "
            "in field 'scope'"
        )
    return (
        f"the catalog does not accept the token that {_credential_fields(connection)} gave: check fields "
        "'oauth2_server_uri' and 'scope'"
    )


def _of_answer(connection: ConnectionFields, server: str, told: str) -> str | None:
    """By the words of the catalog's answer."""
    if re.search(r"(?i)credential vending|no credential provider|no credentials are available|remote signing", told):
        set_none = "set field 'access_delegation' to none, and give those of the storage in 'properties'"
        if connection.conn_type == "iceberg":
            header = '"header.X-Iceberg-Access-Delegation": ""'
            set_none = f"write {header} into the extra, and there give those of the storage"
        return f"the catalog has no storage credentials to give: {set_none} (s3.access-key-id, ...)"
    if re.search(r"(?i)\breference\b", told) and "ref" in connection.extra:
        return f"correct field 'ref': {connection.extra['ref']!r} is no branch or tag"
    if re.search(r"(?i)(?<![/\w])warehouse\b(?!/)", told):
        named = _given(connection, "warehouse")
        return (
            f"correct field 'warehouse': {named!r} is none of the catalog's" if named else "fill in field 'warehouse'"
        )
    if re.search(r"unexpected JSON|decode json", told):
        return (
            f"correct field {uri_field(connection)!r}: {server} answers, but not as an Iceberg REST catalog; its path "
            "must be the one below which /v1/config is"
        )
    return None


def _in_general(connection: ConnectionFields, server: str, error: Exception) -> str:
    field = uri_field(connection)
    if is_of_metastore(error):
        return f"check that a Hive metastore runs at {server}, and host and port in field {field!r}"
    also = "" if not isinstance(error, RESTError) else ", and field 'warehouse'"
    return f"check that {server} of field {field!r} is up and is an Iceberg catalog{also}"


_LOGIN = ("login", "password")
_SQL_RULES = (
    (r"could not translate host name|Name or service not known", ("host",), "cannot be resolved"),
    (
        r"password authentication failed|no password supplied|role .* does not exist",
        ("login", "password"),
        "is refused",
    ),
    (r"database .* does not exist", ("schema",), "is no database of that server"),
    (r"onnection refused|timeout expired|No route to host", ("host", "port"), "does not answer: check that it runs"),
)


def _of_sql(connection: ConnectionFields, server: str, told: str) -> str:
    if re.search(r"relation .* does not exist|no such table|UndefinedTable", told):
        return f"check {_sql_fields(connection, ('schema',))}: {server} does not hold the catalog's tables"
    for pattern, fields, what in _SQL_RULES:
        if re.search(pattern, told):
            return f"check {_sql_fields(connection, fields)}: {_sql_value(connection, server, fields)} {what}"
    return f"check that the database of {server} runs, URI and login are right, and it holds the catalog's tables"


def _sql_fields(connection: ConnectionFields, fields: tuple[str, ...]) -> str:
    given = ("uri",) if _given(connection, "uri") and "login" not in fields else fields
    return ("field " if len(given) == 1 else "fields ") + " and ".join(repr(field) for field in given)


def _sql_value(connection: ConnectionFields, server: str, fields: tuple[str, ...]) -> str:
    if _given(connection, "uri") is None and fields == ("schema",):
        return repr(connection.schema)
    return repr(connection.login) if "login" in fields and connection.login else server


def _credential_fields(connection: ConnectionFields) -> str:
    return "field 'credential'" if _given(connection, "credential") else "fields 'login' and 'password'"


def _token_field(connection: ConnectionFields) -> str:
    return "token" if _given(connection, "token") else "password"


def _given(connection: ConnectionFields, field: str) -> Any:
    """A field of the extra, which connections of type ``iceberg`` fill with what they like; empty counts as not set."""
    return connection.extra.get(field) or None


def _is_token_request(properties: Mapping[str, str], url: str) -> bool:
    return url == properties.get("oauth2-server-uri") or url.endswith("/oauth/tokens")


def _response(error: BaseException) -> Response | None:
    """The answer that the error was made of."""
    for cause in _causes(error):
        found = getattr(cause, "response", None)
        if isinstance(found, Response):
            return found
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
