"""The Spark engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.capabilities import Capabilities, OperationCapability, refused_settings
from airflow_provider_floe.engines.local.expire import expiry_happened
from airflow_provider_floe.engines.spark import (
    expire,
    orphans,
    rewrite_data,
    rewrite_deletes,
    rewrite_manifests,
    statistics,
)
from airflow_provider_floe.engines.spark.capabilities import WANTED, route_refusals, spark_capabilities
from airflow_provider_floe.engines.spark.changes import own_snapshots
from airflow_provider_floe.engines.spark.route import SparkAccess, SparkRoute, run
from airflow_provider_floe.engines.spark.task import Begun, Order, SparkTask
from airflow_provider_floe.errors import CommitOutcomeUnknown, ConfigurationError, EngineUnavailable, UnsupportedSetting
from airflow_provider_floe.iceberg.statistics import written_statistics
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation

log = logging.getLogger(__name__)

_Prepare = Callable[[SparkTask], Order | OperationResult]
_Report = Callable[[SparkTask, Begun, Mapping[str, Any]], OperationResult]
_OPERATIONS: dict[Operation, tuple[_Prepare, _Report]] = {
    Operation.REWRITE_DATA_FILES: (rewrite_data.prepare, rewrite_data.report),
    Operation.REWRITE_POSITION_DELETE_FILES: (rewrite_deletes.prepare, rewrite_deletes.report),
    Operation.REWRITE_MANIFESTS: (rewrite_manifests.prepare, rewrite_manifests.report),
    Operation.COMPUTE_TABLE_STATS: (statistics.prepare, statistics.report),
    Operation.EXPIRE_SNAPSHOTS: (expire.prepare, expire.report),
    Operation.REMOVE_ORPHAN_FILES: (orphans.prepare, orphans.report),
}


class SparkOperations:
    """What the engine does, whichever way its requests get to Spark.

    :param access: to the Spark that is there.
    :param catalogs: Spark's names of the catalogs, by the names that policies use.
    """

    name = "spark"

    def __init__(self, access: SparkAccess, catalogs: Mapping[str, str]) -> None:
        self._access = access
        self.catalogs = dict(catalogs)
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """Ask Spark once which catalogs, procedures, arguments and options there are.

        :raises EngineUnavailable: or ConfigurationError, naming the connection and what to check.
        """
        if self._capabilities is None:
            found = self._access.probe(sorted(set(self.catalogs.values())), WANTED)
            log.info("Spark of connection %s: %s", self._access.connection, found)
            self._capabilities = spark_capabilities(
                found,
                java=self._access.java,
                route=self._access.name,
                connection=self._access.connection,
                catalogs=self.catalogs,
            )
        return self._capabilities

    def _task(self, request: OperationRequest, context: OperationContext) -> SparkTask:
        table = request.table
        names = (self._catalog(table.catalog), *table.namespace, table.name)
        return SparkTask(replace(request, settings=self._honoured(request)), context, self._access, names)

    def _prepared(self, task: SparkTask) -> Order | OperationResult:
        prepare, _ = _OPERATIONS[task.request.operation]
        order = prepare(task)
        if isinstance(order, OperationResult):
            log.info("%s on %s: %s", task.request.operation, task.request.table, order.message)
        return order

    def _reported(self, task: SparkTask, begun: Begun, outcome: Callable[[], Mapping[str, Any]]) -> OperationResult:
        """What Spark did, as it says itself, or where it cannot say so, as the table does.

        :param outcome: gives what the job tells, or raises what became of it.
        """
        table = task.request.table
        told: Mapping[str, Any] = {}
        try:
            told = outcome()
        except (CommitOutcomeUnknown, EngineUnavailable) as error:
            if not _committed(task, begun):
                raise
            log.warning("%s: what it was to commit is in the table, although %s", table, error)
        _, report = _OPERATIONS[task.request.operation]
        result = report(task, begun, told)
        log.info("%s on %s: %s", task.request.operation, table, result.message)
        return result

    def _honoured(self, request: OperationRequest) -> OperationSettings:
        """The settings, with the defaults for those that the plan allows to ignore.

        What the runtime lacks was found out for the plan; that is not asked again for every task.

        :raises UnsupportedSetting: for what cannot be honoured and may not be ignored.
        """
        settings = request.settings
        refusals = route_refusals(request.operation, java=self._access.java)
        refused = refused_settings(OperationCapability(refused=refusals), settings)
        if reasons := [reason for wire, reason in refused.items() if wire not in request.ignored_settings]:
            raise UnsupportedSetting(f"{request.table}: {'; '.join(reasons)}")
        defaults = {
            name: field.get_default(call_default_factory=True, validated_data={})
            for name, field in type(settings).model_fields.items()
            if (field.alias or name) in refused
        }
        return settings.model_copy(update=defaults)

    def _catalog(self, name: str) -> str:
        if name not in self.catalogs:
            raise ConfigurationError(
                f"connection {self._access.connection!r} does not say how Spark calls catalog {name!r}: add it to "
                f"floe_catalogs in its extra (it has {', '.join(sorted(self.catalogs)) or 'none'})"
            )
        return self.catalogs[name]


class SparkEngine(SparkOperations):
    """Carries out operations with the procedures of Iceberg on Spark.

    :param route: how requests get to Spark.
    :param catalogs: Spark's names of the catalogs, by the names that policies use.
    """

    def __init__(self, route: SparkRoute, catalogs: Mapping[str, str]) -> None:
        super().__init__(route, catalogs)
        self.route = route

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        """Run one operation to its end; see :class:`~airflow_provider_floe.engines.base.Engine`."""
        task = self._task(request, context)
        order = self._prepared(task)
        if isinstance(order, OperationResult):
            return order
        return self._reported(
            task, order.begun, lambda: run(self.route, task.document(order), context, order.begun.detail)
        )

    def cancel(self, job_id: str) -> bool:
        """See :class:`~airflow_provider_floe.engines.base.RemoteEngine`."""
        return self.route.cancel(job_id)


def _committed(task: SparkTask, begun: Begun) -> bool:
    """Whether the table holds what the operation was to commit."""
    table = task.context.load_table()
    if task.request.operation is Operation.EXPIRE_SNAPSHOTS:
        return expiry_happened(table, begun.detail)
    if task.request.operation is Operation.COMPUTE_TABLE_STATS:
        return written_statistics(table.metadata, begun.detail) is not None
    return task.evidence_id is not None and bool(own_snapshots(begun.before.snapshot_ids, table, task.evidence_id))
