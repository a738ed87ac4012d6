"""The Trino engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_floe.engines.base import (
    JobStatus,
    OperationContext,
    OperationRequest,
    OperationResult,
    RemoteJob,
)
from airflow_provider_floe.engines.capabilities import Capabilities, CatalogAccess, refused_settings
from airflow_provider_floe.engines.remote import carry_out
from airflow_provider_floe.engines.trino import expire, orphans, rewrite_data, rewrite_manifests, statistics
from airflow_provider_floe.engines.trino.capabilities import (
    catalog_access,
    operation_capabilities,
    server_version,
    understood_calls,
)
from airflow_provider_floe.engines.trino.job import Ended, Submission
from airflow_provider_floe.engines.trino.polling import job_status, poll
from airflow_provider_floe.engines.trino.session import Session
from airflow_provider_floe.errors import ConfigurationError, UnsupportedSetting, UnsupportedTableFeature
from airflow_provider_floe.iceberg.features import table_features
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.tables import Operation

log = logging.getLogger(__name__)

_SUBMIT: dict[Operation, Callable[[Submission], RemoteJob | OperationResult]] = {
    Operation.REWRITE_DATA_FILES: rewrite_data.submit,
    Operation.REWRITE_MANIFESTS: rewrite_manifests.submit,
    Operation.COMPUTE_TABLE_STATS: statistics.submit,
    Operation.EXPIRE_SNAPSHOTS: expire.submit,
    Operation.REMOVE_ORPHAN_FILES: orphans.submit,
}
_COLLECT: dict[Operation, Callable[[Ended], OperationResult]] = {
    Operation.REWRITE_DATA_FILES: rewrite_data.collect,
    Operation.REWRITE_MANIFESTS: rewrite_manifests.collect,
    Operation.COMPUTE_TABLE_STATS: statistics.collect,
    Operation.EXPIRE_SNAPSHOTS: expire.collect,
    Operation.REMOVE_ORPHAN_FILES: orphans.collect,
}


class TrinoEngine:
    """Has Trino carry out operations, by SQL.

    :param connect: opens a connection of Trino's Python client.
    :param catalogs: Trino's names of catalogs, by the names that policies use; empty means that they are the same.
    :param connection: id of the Airflow connection, for messages.
    :param clock_tolerance: how far the server's clock and ours may differ where files are deleted by age.
    """

    name = "trino"

    def __init__(
        self,
        connect: Callable[[], Any],
        catalogs: Mapping[str, str],
        *,
        connection: str = "trino_default",
        clock_tolerance: timedelta = timedelta(minutes=5),
    ) -> None:
        self._connect = connect
        self.catalogs = dict(catalogs)
        self._connection = connection
        self._clock_tolerance = clock_tolerance
        self._probed: tuple[Capabilities, frozenset[str]] | None = None

    def probe(self) -> Capabilities:
        """Ask the server, once, which procedures with which arguments it has, and which retention it demands.

        :raises EngineUnavailable: the server does not answer.
        :raises ConfigurationError: it refuses the credentials, or has no Iceberg catalog.
        """
        return self._probe()[0]

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        """Run one operation to its end; see :class:`~airflow_provider_floe.engines.base.Engine`."""
        return carry_out(self, request, context)

    def submit(self, request: OperationRequest, context: OperationContext) -> RemoteJob | OperationResult:
        """Guard, and have the server register the query; it begins when it is polled for the first time.

        A query that is registered and never polled has done nothing, and the server forgets it after five minutes. So
        whoever dies before the query is on record leaves nothing behind.
        """
        capabilities, understood = self._probe()
        access = self._access(capabilities, request)
        _refuse(capabilities, request, context)
        minimum = max(access.minimum_seconds.get(request.operation, {}).values(), default=0.0)
        with self._session() as session:
            begun = _SUBMIT[request.operation](
                Submission(
                    request=request,
                    context=context,
                    session=session,
                    catalog=self._catalog(request),
                    minimum_retention=timedelta(seconds=minimum),
                    understood=understood,
                    clock_tolerance=self._clock_tolerance,
                )
            )
        if isinstance(begun, OperationResult):
            log.info("%s on %s: %s", request.operation, request.table, begun.message)
            return begun.model_copy(update={"ignored_settings": request.ignored_settings})
        log.info("%s on %s: query %s, %s", request.operation, request.table, begun.id, begun.url)
        return begun

    def poll(self, job: RemoteJob) -> JobStatus:
        """Fetch what the server says next; see :class:`~airflow_provider_floe.engines.base.ResumableEngine`.

        The server drops a query that nobody asks about for five minutes (its ``query.client.timeout``).

        :raises EngineUnavailable: when it does not answer.
        """
        if job.state.get("over"):
            return job_status(job)
        with self._session() as session:
            return poll(session, job)

    def collect(self, request: OperationRequest, context: OperationContext, status: JobStatus) -> OperationResult:
        """Hold what the query did against what was there before, and count it in the table's metadata."""
        with self._session() as session:
            ended = Ended(request, context, session, self._catalog(request), status)
            result = _COLLECT[request.operation](ended)
        log.info("%s on %s: %s", request.operation, request.table, result.message)
        return result.model_copy(
            update={"duration_seconds": ended.seconds, "ignored_settings": request.ignored_settings}
        )

    def cancel(self, query_id: str) -> bool:
        """Kill a query that an operation record names; True when it is over by then.

        :raises FloeError: when the server does not answer.
        """
        with self._session() as session:
            return session.cancel(query_id)

    def _catalog(self, request: OperationRequest) -> str:
        return self.catalogs.get(request.table.catalog, request.table.catalog)

    def _session(self) -> Session:
        return Session(self._connect, self._connection)

    def _probe(self) -> tuple[Capabilities, frozenset[str]]:
        if self._probed is None:
            with self._session() as session:
                access, properties = catalog_access(session, self.catalogs)
                usable = [self.catalogs.get(name, name) for name, found in access.items() if not found.refusal]
                if not usable:
                    raise ConfigurationError("; ".join(found.refusal for found in access.values()))
                understood = understood_calls(session, usable[0])
                capabilities = Capabilities(
                    engine=self.name,
                    version=server_version(session),
                    operations=operation_capabilities(understood, properties),
                    catalogs=access,
                    catalogs_setting=f"floe_catalogs in the extra of connection {self._connection!r}",
                )
            self._probed = capabilities, understood | properties
        return self._probed

    def _access(self, capabilities: Capabilities, request: OperationRequest) -> CatalogAccess:
        access = (capabilities.catalogs or {}).get(request.table.catalog)
        if access is None or access.refusal:
            raise ConfigurationError(
                f"Trino cannot get at {request.table}: "
                + (access.refusal if access else f"name its catalog in {capabilities.catalogs_setting}")
            )
        return access


def _refuse(capabilities: Capabilities, request: OperationRequest, context: OperationContext) -> None:
    """What a plan would have refused, for whoever comes without one, and for a table that changed since.

    :raises UnsupportedSetting: naming the settings; UnsupportedTableFeature: naming the features.
    """
    capability = capabilities.operation(request.operation)
    if not capability.supported:
        raise UnsupportedSetting(capability.reason)
    unsupported = refused_settings(capability, request.settings)
    ignored = {text.removeprefix("setting ").partition("=")[0] for text in request.ignored_settings}
    if refusals := [text for wire, text in unsupported.items() if wire not in ignored]:
        raise UnsupportedSetting(f"{request.operation} on {request.table}: {'; '.join(refusals)}")
    table = context.load_table()
    features = table_features(table, snapshot_manifests(table))
    if refused := [
        f"{name}: {capability.refused_features[name]}" for name in features if name in capability.refused_features
    ]:
        raise UnsupportedTableFeature(f"{request.table} has {'; '.join(refused)}")
