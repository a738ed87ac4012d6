"""Which kinds of catalog there are: the built-in ones, and those that other packages register."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points

from airflow_provider_floe.catalogs.base import CatalogKind, ConnectionFields
from airflow_provider_floe.catalogs.fields import text
from airflow_provider_floe.errors import ConfigurationError, MissingExtra

ENTRY_POINTS = "airflow_provider_floe.catalogs"
"""Group under which a package registers a kind: its name, and a class or function that makes a ``CatalogKind``."""

_PACKAGE = "airflow_provider_floe.catalogs"
_BUILT_IN = {
    "rest": "rest:RestKind",
    "polaris": "rest_servers:PolarisKind",
    "lakekeeper": "rest_servers:LakekeeperKind",
    "nessie": "rest_servers:NessieKind",
    "gravitino": "rest_servers:GravitinoKind",
    "sql": "sql:SqlKind",
    "hive": "hive:HiveKind",
}


def kind_names() -> list[str]:
    """The kinds there are."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def catalog_kind(name: str) -> CatalogKind:
    """The kind of that name; a built-in one wins over a registered one.

    :raises ConfigurationError: when there is none, naming the nearest, or when a registered one cannot be loaded.
    :raises MissingExtra: when it needs a library that is not installed.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        make: Callable[[], CatalogKind] = getattr(import_module(f"{_PACKAGE}.{module}"), attribute)
        return make()
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            kind: CatalogKind = entry.load()()
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(f"catalog kind {name!r} of {entry.value} cannot be loaded: {error}") from error
        return kind
    near = get_close_matches(name, kind_names(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(kind_names())}"
    raise ConfigurationError(f"there is no catalog kind {name!r}: {hint}")


def kind_of(connection: ConnectionFields) -> CatalogKind:
    """The kind of the catalog that a connection describes.

    :raises ConfigurationError: naming the connection and the field.
    """
    if connection.conn_type == "iceberg":
        from airflow_provider_floe.catalogs.iceberg_connection import IcebergConnectionKind

        return IcebergConnectionKind()
    try:
        return catalog_kind(text(connection, "catalog_kind") or "rest")
    except MissingExtra:
        raise
    except ConfigurationError as error:
        raise ConfigurationError(f"connection {connection.conn_id!r}, field 'catalog_kind': {error}") from error
