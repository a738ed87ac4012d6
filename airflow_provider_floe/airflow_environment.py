"""Builds the use cases' environment from Airflow's configuration and connections. Never called while parsing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_floe import config
from airflow_provider_floe.airflow_catalogs import open_catalogs
from airflow_provider_floe.airflow_events import AirflowEvents
from airflow_provider_floe.errors import ConfigurationError, FloeError
from airflow_provider_floe.hooks.floe import find_connection
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.stores.protocols import OperationStatus

if TYPE_CHECKING:
    from airflow_provider_floe.engines.base import Engine, OperationContext, OperationRequest, OperationResult
    from airflow_provider_floe.engines.capabilities import Capabilities
    from airflow_provider_floe.maintenance.settings import Settings
    from airflow_provider_floe.policies.model import Policy
    from airflow_provider_floe.stores.protocols import FloeStore

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
