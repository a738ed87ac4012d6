"""Reads a connection's fields, with errors that name connection, field and fix, and never a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.errors import ConfigurationError

EXTRA_FIELDS = frozenset(
    (
        "catalog_kind",
        "catalog_name",
        "uri",
        "warehouse",
        "credential",
        "token",
        "oauth2_server_uri",
        "scope",
        "access_delegation",
        "properties",
    )
)
"""Keys that the extra of a connection of type ``floe`` may hold."""

_SECRET_KEY = re.compile(
    r"secret|authorization|password|passwd|token|credential|access[-_.]?key|account[-_.]?key|sas|private", re.I
)
_URI_PASSWORD = re.compile(r"(://[^:/@\s]*:)([^@/\s]+)(@)")


def wrong(connection: ConnectionFields, field: str, problem: str, fix: str) -> ConfigurationError:
    """The error for one bad field."""
    shown = without_secrets(problem, secrets_of(connection, {}))
    return ConfigurationError(f"connection {connection.conn_id!r}, field {field!r}: {shown}; {fix}")


def text(connection: ConnectionFields, field: str) -> str | None:
    """A text field of the extra; empty counts as not set.

    :raises ConfigurationError: when it is something else than text.
    """
    value = connection.extra.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise wrong(connection, field, f"must be text, not {type(value).__name__}", "put it in quotes")
    return value.strip()


def catalog_name(connection: ConnectionFields) -> str:
    """The name that policies use: the extra field ``catalog_name``, else the connection's id."""
    return text(connection, "catalog_name") or connection.conn_id


def check_extra(connection: ConnectionFields, known: Collection[str] = EXTRA_FIELDS) -> None:
    """Refuse keys that nothing reads: a misspelt field would be ignored in silence otherwise. Empty ones are what the
    form makes of fields of other kinds.

    :raises ConfigurationError: naming the key and the nearest one there is.
    """
    for key, value in connection.extra.items():
        if key not in known and value not in (None, ""):
            near = get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            fix = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(sorted(known))}"
            raise wrong(
                connection, key, "there is no such field", f"{fix} Properties of pyiceberg go into 'properties'"
            )


def free_properties(connection: ConnectionFields) -> dict[str, str]:
    """The extra field ``properties``: a JSON object, or its text, of properties for pyiceberg.

    :raises ConfigurationError: when it is no JSON object of scalar values.
    """
    value = connection.extra.get("properties")
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise wrong(
                connection, "properties", "is not JSON", 'write for example {"s3.region": "eu-west-1"}'
            ) from error
    if not isinstance(value, Mapping):
        raise wrong(connection, "properties", "is not a JSON object", 'write for example {"s3.region": "eu-west-1"}')
    return {str(key): _scalar(connection, str(key), item) for key, item in value.items() if item is not None}


def _scalar(connection: ConnectionFields, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise wrong(
        connection, f"properties.{key}", f"must be text, number or boolean, not {type(value).__name__}", "write it flat"
    )


def secrets_of(connection: ConnectionFields, properties: Mapping[str, Any]) -> frozenset[str]:
    """Every text that must not be shown: the connection's, and what its properties were made of."""
    found = {connection.password or ""}
    for key, value in (*_texts(connection.extra), *_texts(properties)):
        if _SECRET_KEY.search(key):
            found |= {value, value.partition(":")[2]}
        if match := _URI_PASSWORD.search(value):
            found.add(match.group(2))
    return frozenset(secret for secret in found if len(secret) > 2)


def _texts(properties: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in properties.items():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str):
            yield key, value


def without_secrets(message: str, secrets: Collection[str]) -> str:
    """The text with every secret replaced."""
    for secret in sorted(secrets, key=len, reverse=True):
        message = message.replace(secret, "***")
    return _URI_PASSWORD.sub(r"\1***\3", message)
