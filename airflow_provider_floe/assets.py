"""Asset URIs of tables: ``iceberg://catalog/level/table`` starts maintenance, ``floe://...`` says it was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_floe.errors import InvalidTableReference
from airflow_provider_floe.tables import TableRef

if TYPE_CHECKING:
    from collections.abc import Sequence

MAINTAINED_ALIAS = "floe"
"""Name of the asset alias that every maintained table's event is attached to."""


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check a table's URI and write each part percent-encoded; Airflow calls it for both schemes.

    :raises ValueError: when the URI does not name catalog, namespace and table.
    """
    text = uri._replace(query="", fragment="").geturl()
    try:
        table = TableRef.from_uri(text)
    except InvalidTableReference as error:
        raise ValueError(str(error)) from error
    catalog, _, path = table.uri("x").removeprefix("x://").partition("/")
    return uri._replace(netloc=catalog, path=f"/{path}")


def create_asset(
    *,
    catalog: str,
    namespace: str | Sequence[str],
    table: str,
    scheme: str = "iceberg",
    extra: dict[str, Any] | None = None,
) -> Asset:
    """The asset of a table.

    :param scheme: ``iceberg`` for the table as its writers know it, ``floe`` for its maintenance.
    """
    return Asset(uri=TableRef.of(catalog, namespace, table).uri(scheme), extra=extra)
