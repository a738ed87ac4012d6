"""Engines that work elsewhere, made from Airflow's connections to them. Never called while parsing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_floe import config
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.hooks.floe import find_connection

if TYPE_CHECKING:
    from airflow_provider_floe.engines.base import Engine

CATALOGS_EXTRA = "floe_catalogs"
"""Key in the extra of an engine's connection: the engine's names of catalogs, by the names that policies use."""


def remote_engines() -> dict[str, Callable[[], Engine]]:
    """What makes the engines that the configuration names, by engine name.

    Each raises :class:`ConfigurationError`, naming the connection and the fix, when the connection is wrong.
    """
    found: dict[str, Callable[[], Engine]] = {}
    if trino_conn_id := config.option("trino_conn_id"):
        found["trino"] = lambda: open_trino(trino_conn_id)
    if spark_conn_id := config.option("spark_conn_id"):
        found["spark"] = lambda: open_spark(spark_conn_id)
    return found


def open_trino(conn_id: str) -> Engine:
    """The Trino engine on a connection of the Trino provider; it connects when it is first used.

    :raises ConfigurationError: when there is no such connection, or it is not one of Trino.
    """
    connection = find_connection(conn_id)
    if connection.conn_type != "trino":
        raise ConfigurationError(
            f"[floe] trino_conn_id = {conn_id!r}: the connection is of type {connection.conn_type!r}, but the engine "
            "needs one of type trino"
        )
    from airflow.providers.trino.hooks.trino import TrinoHook

    from airflow_provider_floe.engines.trino.engine import TrinoEngine

    return TrinoEngine(
        lambda: TrinoHook(trino_conn_id=conn_id).get_conn(),  # type: ignore[no-untyped-call]
        catalog_names(conn_id, connection.extra_dejson),
        connection=conn_id,
    )


def open_spark(conn_id: str) -> Engine:
    """The Spark engine on a connection of the Spark provider; it connects when it is first used.

    :raises ConfigurationError: when there is no such connection, or it is not one of Spark.
    """
    from airflow_provider_floe.airflow_spark import spark_engine

    return spark_engine(conn_id, catalog_names(conn_id, find_connection(conn_id).extra_dejson))


def catalog_names(conn_id: str, extra: Mapping[str, Any]) -> dict[str, str]:
    """The engine's names of catalogs, by the names that policies use; empty where the extra has none.

    :raises ConfigurationError: when they are not a mapping of names.
    """
    given = extra.get(CATALOGS_EXTRA) or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    if not isinstance(given, dict) or not all(isinstance(name, str) and name for name in given.values()):
        raise ConfigurationError(
            f"connection {conn_id!r}: {CATALOGS_EXTRA} in its extra must map the catalogs of policies to those of the "
            'engine, as JSON: {"prod": "iceberg"}'
        )
    return {str(name): theirs for name, theirs in given.items()}
