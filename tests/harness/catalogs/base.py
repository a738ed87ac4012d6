"""What a catalog under test is: how to start it, how Airflow and engines connect to it, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.tables import Operation

NAME = "lake"
"""What policies, Airflow, Spark and Trino call every catalog under test, and the connection to it."""


@dataclass(frozen=True)
class Mistake:
    """A connection that is wrong in one way.

    :ivar connection: in Airflow's JSON form.
    :ivar says: what the error must hold: the field, and what to do.
    :ivar refused: whether it is an error at all; some catalogs only look empty.
    """

    connection: Mapping[str, Any]
    says: tuple[str, ...]
    refused: bool = True


@dataclass(frozen=True)
class Place:
    """A running catalog.

    :ivar connection: in Airflow's JSON form, as ``AIRFLOW_CONN_LAKE`` would hold it.
    :ivar mistakes: wrong connections, by what is wrong with them: ``host``, ``port``, ``credential``, ``token``,
        ``scope``, ``warehouse`` and more.
    :ivar trino: properties of Trino's ``CREATE CATALOG ... USING iceberg``, where Trino speaks to it.
    :ivar spark: properties below ``spark.sql.catalog.<name>``, where Spark speaks to it.
    """

    connection: Mapping[str, Any]
    mistakes: Mapping[str, Mistake] = field(default_factory=dict)
    trino: Mapping[str, str] | None = None
    spark: Mapping[str, str] | None = None


@dataclass(frozen=True)
class CatalogUnderTest:
    """One catalog that the suite runs against.

    :ivar name: of the server; also the id of its tests.
    :ivar kind: the ``catalog_kind`` that the documentation names it under.
    :ivar version: what the documentation says that it was tested against.
    :ivar open: starts it, for as long as the block is entered.
    :ivar nested: whether namespaces have levels.
    :ivar levels: names of namespaces, beside plain ones, that it takes: unicode, dots, blanks.
    :ivar names: likewise names of tables.
    :ivar refuses: operations that Floe must not do there, each with words of the documented reason.
    :ivar engines: those elsewhere that speak to it: ``trino``, ``spark``.
    :ivar imitated: whether a gateway before another catalog stands in for it.
    """

    name: str
    kind: str
    version: str
    open: Callable[[], AbstractContextManager[Place]]
    nested: bool = True
    levels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    refuses: Mapping[Operation, str] = field(default_factory=dict)
    engines: tuple[str, ...] = ("trino", "spark")
    imitated: bool = False


def connection_fields(connection: Mapping[str, Any], conn_id: str = NAME) -> ConnectionFields:
    """A connection in Airflow's JSON form, as Floe reads it."""
    return ConnectionFields(conn_id, **connection)


def changed(connection: Mapping[str, Any], *, without: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """A copy with other fields; those of ``extra`` are told by ``extra={...}``, and merged.

    :param without: fields to leave out, of the connection or its extra.
    """
    extra = {**connection.get("extra", {}), **changes.pop("extra", {})}
    kept = {key: value for key, value in {**connection, **changes}.items() if key not in without}
    return {**kept, "extra": {key: value for key, value in extra.items() if key not in without}}
