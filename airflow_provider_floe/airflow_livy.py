"""The Spark engine on connections of the Livy provider. Never called while parsing."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_floe import config
from airflow_provider_floe.airflow_catalogs import open_catalogs
from airflow_provider_floe.errors import (
    ConfigurationError,
    EngineUnavailable,
    FloeError,
    InvalidTableReference,
    MissingExtra,
)
from airflow_provider_floe.hooks.floe import find_connection

if TYPE_CHECKING:
    from airflow.providers.apache.livy.hooks.livy import LivyHook
    from airflow.providers.common.compat.sdk import Connection
    from pyiceberg.table import Table

    from airflow_provider_floe.catalogs.base import CatalogClient
    from airflow_provider_floe.engines.base import Engine
    from airflow_provider_floe.tables import TableRef

log = logging.getLogger(__name__)

JOB_FILE_EXTRA = "floe_livy_job_file"
"""Key in the extra of a connection: the path by which Livy and Spark find the job, say ``s3a://bucket/floe_job.py``."""
BATCH_EXTRA = "floe_livy_batch"
"""Key in the extra of a connection: more fields of the batches, as JSON, say ``{"queue": "nightly"}``."""
PROBE_TABLE_EXTRA = "floe_livy_probe_table"
"""Key in the extra of a connection: the table by whose storage Spark reports what it has, say ``prod.ops.floe``."""
_OURS = "floe_"
_TAKEN = frozenset({"file", "args", "name", "className"})
_SECRET = re.compile(r"secret|password|token|credential|access[-.]?key", re.IGNORECASE)
_ANSWER_SECONDS = 60


def livy_engine(conn_id: str, catalogs: Mapping[str, str]) -> Engine:
    """The Spark engine on a connection of type ``livy``; it connects when it is first used.

    :param catalogs: Spark's names of the catalogs, by the names that policies use.
    :raises MissingExtra: when the Livy provider is not installed.
    :raises ConfigurationError: naming the key of the connection's extra that is missing or wrong.
    """
    from airflow_provider_floe.engines.spark.livy import LivyAccess, LivyEngine
    from airflow_provider_floe.engines.spark.livy_server import LivyServer

    extra = find_connection(conn_id).extra_dejson
    job_file = extra.get(JOB_FILE_EXTRA)
    if not isinstance(job_file, str) or not job_file:
        raise ConfigurationError(
            f"connection {conn_id!r}: {JOB_FILE_EXTRA} in its extra must say where Livy and Spark find the job of this "
            "package: write it with `airflow floe spark-job-file floe_job.py`, copy it to where they can read it, and "
            f'name that place, for example {{"{JOB_FILE_EXTRA}": "s3a://bucket/floe_job.py"}}'
        )
    server = LivyServer(HookRequests(conn_id), conn_id)
    tables = CatalogTables(_probe_table(conn_id, extra))
    access = LivyAccess(server, job_file, _batch_fields(conn_id, extra), tables, catalogs)
    return LivyEngine(access, catalogs)


def _probe_table(conn_id: str, extra: Mapping[str, Any]) -> TableRef | None:
    from airflow_provider_floe.tables import TableRef

    given = extra.get(PROBE_TABLE_EXTRA)
    try:
        return TableRef.parse(str(given)) if given else None
    except InvalidTableReference as error:
        raise ConfigurationError(f"connection {conn_id!r}: {PROBE_TABLE_EXTRA} in its extra: {error}") from error


def _batch_fields(conn_id: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    given = extra.get(BATCH_EXTRA) or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    if not isinstance(given, dict) or not isinstance(given.get("conf", {}), dict):
        raise ConfigurationError(
            f"connection {conn_id!r}: {BATCH_EXTRA} in its extra must be fields of Livy's batches, as JSON: "
            '{"queue": "nightly", "conf": {"spark.executor.memory": "4g"}}'
        )
    if taken := sorted(_TAKEN & given.keys()):
        raise ConfigurationError(f"connection {conn_id!r}: {BATCH_EXTRA} must not set {', '.join(taken)}: Floe does")
    if secret := sorted(name for name in given.get("conf", {}) if _SECRET.search(name)):
        raise ConfigurationError(
            f"connection {conn_id!r}: {BATCH_EXTRA} sets {', '.join(secret)}, but whoever may look at Livy's batches "
            "sees their conf: put credentials into Spark's own configuration (spark-defaults.conf) instead"
        )
    return given


class HookRequests:
    """Sends requests by the Livy provider's hook, with what its connection says.

    :param conn_id: of a connection of type ``livy``.
    :raises MissingExtra: when the provider is not installed.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._hook = _hook(conn_id)

    @property
    def url(self) -> str:
        """See :class:`~airflow_provider_floe.engines.spark.livy_server.LivyRequests`."""
        if not self._hook.base_url:
            self._hook.get_conn()
        address = urlsplit(self._hook.base_url)
        return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl().rstrip("/")

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Mapping[str, Any]]:
        """See :class:`~airflow_provider_floe.engines.spark.livy_server.LivyRequests`."""
        from requests import RequestException

        data = None if body is None else json.dumps(body)
        try:
            response = self._hook.run_method(path, method, data, headers={"X-Requested-By": "airflow"})
        except RequestException as error:
            raise EngineUnavailable(
                f"Livy of connection {self._conn_id!r} does not answer ({type(error).__name__}): check host, port and "
                "TLS of the connection, and that the server runs"
            ) from error
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        return response.status_code, answer if isinstance(answer, dict) else {}


def _hook(conn_id: str) -> LivyHook:
    try:
        from airflow.providers.apache.livy.hooks.livy import LivyHook
    except ImportError as error:
        raise MissingExtra(f"connection {conn_id!r} of type livy", "livy") from error
    ours = _without_our_keys(find_connection(conn_id))

    class Hook(LivyHook):
        """Asks for its connection but once: it sends many requests."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return ours

    return Hook(conn_id, extra_options={"check_response": False, "timeout": _ANSWER_SECONDS})


def _without_our_keys(connection: Connection) -> Connection:
    """The hook makes HTTP headers of all in the extra that it does not know."""
    extra = {name: value for name, value in connection.extra_dejson.items() if not name.startswith(_OURS)}
    return type(connection)(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type,
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        login=connection.login,
        password=connection.password,
        extra=json.dumps(extra),
    )


class CatalogTables:
    """The tables of the configured catalogs; they are opened when the first one is needed.

    :param only: the one that may serve for reports of what Spark has; None for any.
    """

    def __init__(self, only: TableRef | None = None) -> None:
        self._only = only

    @cached_property
    def _catalogs(self) -> Mapping[str, CatalogClient]:
        return open_catalogs(config.catalog_conn_ids())

    def load(self, table: TableRef) -> Table:
        """See :class:`~airflow_provider_floe.engines.spark.livy.LivyTables`."""
        if table.catalog not in self._catalogs:
            raise ConfigurationError(
                f"{table}: [floe] catalogs has no catalog {table.catalog!r}, which a job worked on"
            )
        return self._catalogs[table.catalog].load(table)

    def some(self, catalog: str) -> Iterator[Table]:
        """See :class:`~airflow_provider_floe.engines.spark.livy.LivyTables`."""
        if catalog not in self._catalogs:
            return
        if self._only is not None:
            if self._only.catalog == catalog:
                yield from self._loaded(self._only)
            return
        client = self._catalogs[catalog]
        more: list[Iterator[TableRef]] = []
        try:
            for namespace in client.namespaces():
                tables = client.tables([namespace])
                more.append(tables)
                for table in islice(tables, 1):
                    yield from self._loaded(table)
            for table in chain.from_iterable(more):
                yield from self._loaded(table)
        except FloeError as error:
            log.warning("catalog %s: %s", catalog, error)

    def _loaded(self, table: TableRef) -> Iterator[Table]:
        try:
            yield self.load(table)
        except FloeError as error:
            log.info("%s", error)
