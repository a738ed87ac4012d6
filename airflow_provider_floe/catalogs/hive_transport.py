"""How Hive metastores are spoken to: within time limits, the next one when one is down, and naming who holds a lock."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from hive_metastore.ThriftHiveMetastore import Client  # type: ignore[import-untyped]
from hive_metastore.ttypes import LockRequest, ShowLocksRequest  # type: ignore[import-untyped]
from pyiceberg.catalog.hive import HiveCatalog, _HiveClient
from pyiceberg.exceptions import CommitFailedException, WaitingForLockException
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.utils.properties import property_as_bool
from thrift.transport import TTransport  # type: ignore[import-not-found,import-untyped,unused-ignore]
from thrift.transport.TSocket import TSocket  # type: ignore[import-not-found,import-untyped,unused-ignore]

log = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 10, 120

AGENT = "airflow-provider-floe"


class TimedHiveCatalog(HiveCatalog):
    """pyiceberg's Hive catalog with what it lacks: time limits, the use of every URI, and locks that say whose they
    are.
    """

    @staticmethod
    def _create_hive_client(properties: dict[str, str]) -> _HiveClient:
        return _TimedClient(
            properties["uri"],
            properties.get("ugi"),
            property_as_bool(properties, "hive.kerberos-authentication", False),
            properties.get("hive.kerberos-service-name", "hive"),
        )

    def _create_lock_request(self, database_name: str, table_name: str) -> LockRequest:
        request = super()._create_lock_request(database_name, table_name)
        request.agentInfo = AGENT
        return request

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """See :meth:`HiveCatalog.commit_table`; a lock that cannot be had is named with its holder."""
        try:
            return super().commit_table(table, requirements, updates)
        except CommitFailedException as error:
            if not isinstance(error.__cause__, WaitingForLockException):
                raise
            raise CommitFailedException(self._who_locks(table)) from error

    def _who_locks(self, table: Table) -> str:
        database, name = table.name()
        with self._client as client:
            held = client.show_locks(ShowLocksRequest(dbname=database, tablename=name)).locks or []
        holders = "; ".join(_holder(lock) for lock in held if lock.acquiredat) or "someone, just now"
        return (
            f"the metastore's lock of the table is held by {holders}. A writer that died keeps it until the metastore "
            "drops it (hive.txn.timeout after its last sign of life, 5 minutes by default)"
        )


class _TimedClient(_HiveClient):
    """A client that connects to the first of its URIs that answers, and waits for no answer for ever."""

    def _init_thrift_transport(self) -> TTransport.TTransportBase:
        return self._to(self._uri.partition(",")[0])

    def __enter__(self) -> Client:
        *others, last = self._uri.split(",")
        for uri in others:
            try:
                return self._opened(uri)
            except TTransport.TTransportException as error:
                log.warning("metastore %s does not answer (%s): trying the next", uri, error)
        return self._opened(last)

    def _opened(self, uri: str) -> Client:
        self._transport = self._to(uri)
        self._socket.setTimeout(CONNECT_SECONDS * 1000)
        self._transport.open()
        self._socket.setTimeout(READ_SECONDS * 1000)
        return self._client()

    def _to(self, uri: str) -> TTransport.TTransportBase:
        parts = urlsplit(uri.strip())
        self._socket = TSocket(parts.hostname, parts.port or 9083)
        if not self._kerberos_auth:
            return TTransport.TBufferedTransport(self._socket)
        return TTransport.TSaslClientTransport(self._socket, host=parts.hostname, service=self._kerberos_service_name)


def _holder(lock: Any) -> str:
    since = datetime.fromtimestamp(lock.acquiredat / 1000, UTC)
    agent = f" ({lock.agentInfo})" if lock.agentInfo and lock.agentInfo != "Unknown" else ""
    return f"{lock.user}@{lock.hostname}{agent} since {since:%H:%M:%S} UTC"
