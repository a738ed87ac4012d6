"""Builds the use cases' environment from Airflow's configuration and connections. Never called while parsing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_floe import config
from airflow_provider_floe.airflow_events import AirflowEvents
from airflow_provider_floe.errors import ConfigurationError, FloeError
from airflow_provider_floe.hooks.floe import connection_fields, find_connection
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.stores.protocols import OperationStatus

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_provider_floe.catalogs.base import CatalogClient, ConnectionFields
    from airflow_provider_floe.engines.base import Engine, OperationContext, OperationRequest, OperationResult
    from airflow_provider_floe.engines.capabilities import Capabilities
    from airflow_provider_floe.maintenance.settings import Settings
    from airflow_provider_floe.policies.model import Policy
    from airflow_provider_floe.stores.protocols import FloeStore
    from airflow_provider_floe.tables import Operation, TableRef

log = logging.getLogger(__name__)

_RUNNING = (OperationStatus.RUNNING, OperationStatus.COMMITTING)


@contextmanager
def open_environment(
    policies: Sequence[Policy],
    *,
    catalog_conn_ids: Sequence[str] | None = None,
    store_conn_id: str | None = None,
    several_tasks: bool = False,
) -> Iterator[tuple[Environment, AirflowEvents]]:
    """The environment of one task or command, closed at the end.

    :param policies: every policy.
    :param catalog_conn_ids: connections of the catalogs; default ``[floe] catalogs``.
    :param store_conn_id: connection of the Floe store; default ``[floe] store_conn_id``.
    :param several_tasks: whether other tasks must see what this one stores.
    :raises ConfigurationError: naming the setting or connection and the fix.
    """
    settings = config.read_settings()
    catalogs = open_catalogs(config.catalog_conn_ids() if catalog_conn_ids is None else catalog_conn_ids)
    store = open_floe_store(store_conn_id)
    try:
        if several_tasks and not store.shared:
            raise ConfigurationError(
                "the Floe store is in memory, which serves one task only, but this DAG has several: set "
                "[floe] store_conn_id, or remove [floe] store_url to use the SQLite file in Airflow's home"
            )
        events = AirflowEvents(
            running=lambda: len(store.operations(statuses=_RUNNING, limit=100_000)),
            active_policies=sum(policy.enabled for policy in policies),
        )
        yield (
            Environment(
                store=store,
                policies=tuple(policies),
                catalogs=catalogs,
                engines=open_engines(settings),
                settings=settings,
                emit=events,
            ),
            events,
        )
    finally:
        store.close()


def open_catalogs(conn_ids: Sequence[str]) -> dict[str, CatalogClient]:
    """Catalogs by the name that policies use. One that cannot be opened fails only when it is used.

    :raises ConfigurationError: when there is none, or two have the same name.
    """
    if not conn_ids:
        raise ConfigurationError(
            "no catalogs are configured: list connection ids in [floe] catalogs (AIRFLOW__FLOE__CATALOGS=lake)"
        )
    catalogs: dict[str, CatalogClient] = {}
    ids: dict[str, str] = {}
    for conn_id in conn_ids:
        client = _open_catalog(conn_id)
        if client.name in catalogs:
            raise ConfigurationError(
                f"connections {ids[client.name]!r} and {conn_id!r} both name their catalog {client.name!r}: give one "
                "of them another catalog_name, or list it once in [floe] catalogs"
            )
        catalogs[client.name] = client
        ids[client.name] = conn_id
    return catalogs


def open_engines(settings: Settings) -> Mapping[str, Engine]:
    """Engines by name. One that cannot be made is unavailable to the plan, with the reason."""
    from airflow_provider_floe.airflow_engines import remote_engines
    from airflow_provider_floe.engines.registry import load_engine_factories

    makers: dict[str, Callable[[], Engine]] = {
        name: partial(make, memory_limit_bytes=settings.local_memory_limit_bytes)
        for name, make in load_engine_factories().items()
    }
    engines: dict[str, Engine] = {}
    for name, make in {**makers, **remote_engines()}.items():
        try:
            engines[name] = make()
        except FloeError as error:
            engines[name] = BrokenEngine(name, error)
    return engines


def open_floe_store(store_conn_id: str | None = None) -> FloeStore:
    """The Floe store: a PostgreSQL connection, a URL, or the SQLite file in Airflow's home.

    :raises ConfigurationError: when the SQLite file is not enough for the executor, or the connection is wrong.
    :raises StoreUnavailable: when the database does not answer.
    """
    from airflow_provider_floe.stores.open import open_store

    return open_store(store_url(store_conn_id))


def store_url(store_conn_id: str | None = None) -> str:
    """SQLAlchemy URL of the Floe store.

    :raises ConfigurationError: see :func:`open_floe_store`.
    """
    conn_id = store_conn_id or config.option("store_conn_id")
    if conn_id:
        return _postgres_url(conn_id)
    url = config.option("store_url")
    if url:
        return url
    executor = config.executor_that_spans_hosts()
    if executor:
        raise ConfigurationError(
            f"the Floe store is a SQLite file by default, which serves one host only, but {executor} runs tasks on "
            "several: set [floe] store_conn_id to a PostgreSQL connection"
        )
    return f"sqlite:///{config.airflow_home() / 'floe.db'}"


def _postgres_url(conn_id: str) -> str:
    connection = find_connection(conn_id)
    if connection.conn_type not in ("postgres", "postgresql"):
        raise ConfigurationError(
            f"[floe] store_conn_id = {conn_id!r}: the connection is of type {connection.conn_type!r}, but the Floe "
            "store needs one of type postgres"
        )
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    return str(PostgresHook(postgres_conn_id=conn_id).sqlalchemy_url.render_as_string(hide_password=False))


def _open_catalog(conn_id: str) -> CatalogClient:
    from airflow_provider_floe.catalogs.client import connect
    from airflow_provider_floe.catalogs.fields import catalog_name

    fields: ConnectionFields | None = None
    try:
        fields = connection_fields(conn_id)
        return connect(fields)
    except FloeError as error:
        log.warning("catalog of connection %s cannot be used: %s", conn_id, error)
        return BrokenCatalog(catalog_name(fields) if fields else conn_id, error)


class BrokenCatalog:
    """Stands for a catalog whose connection is wrong: runs that do not need it go on without it."""

    kind = "unknown"

    def __init__(self, name: str, error: FloeError) -> None:
        self.name = name
        self._error = error

    def _refuse(self) -> NoReturn:
        raise self._error

    def namespaces(self) -> list[tuple[str, ...]]:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def tables(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> Iterator[TableRef]:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def load(self, table: TableRef) -> Table:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def metadata_location(self, table: TableRef) -> str | None:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def cannot(self, operation: Operation) -> str | None:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def describe(self) -> str:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()


class BrokenEngine:
    """Stands for an engine that cannot be made: plans leave it out and say why."""

    def __init__(self, name: str, error: FloeError) -> None:
        self.name = name
        self._error = error

    def probe(self) -> Capabilities:
        """:raises FloeError: why it cannot be made."""
        raise self._error

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        """:raises FloeError: why it cannot be made."""
        raise self._error
