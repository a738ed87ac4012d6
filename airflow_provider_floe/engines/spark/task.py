"""What every operation on Spark has at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.spark import route as routes
from airflow_provider_floe.engines.spark.request import snapshot_properties
from airflow_provider_floe.engines.spark.route import SparkRoute


@dataclass(frozen=True)
class SparkTask:
    """One operation on one table, on its way to Spark.

    :ivar names: Spark's name of the catalog, the namespace's levels, the table's name.
    """

    request: OperationRequest
    context: OperationContext
    route: SparkRoute
    names: tuple[str, ...]
    started: float = field(default_factory=time.monotonic)

    @property
    def evidence_id(self) -> str | None:
        """The operation id, where snapshots bear it."""
        return self.request.operation_id if self.route.java else None

    def run(
        self,
        table: Table,
        steps: Sequence[Mapping[str, Any]],
        detail: Mapping[str, Any],
        *,
        mark: str | None = None,
        count_rows: str | None = None,
        views: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Have Spark carry out the steps.

        :param table: as it was when the steps were chosen.
        :param detail: for the record, before Spark may commit.
        :param count_rows: aggregates to compare for each snapshot of kind replace.
        :raises FloeError: see :func:`~airflow_provider_floe.engines.spark.route.run`.
        """
        document = {
            "operation": str(self.request.operation),
            "operation_id": self.request.operation_id,
            "table": list(self.names),
            "steps": list(steps),
            "views": dict(views or {}),
            "snapshot_properties": snapshot_properties(self.request.operation_id, mark),
            "count_rows": count_rows,
            "known_snapshots": [snapshot.snapshot_id for snapshot in table.metadata.snapshots],
        }
        return routes.run(self.route, document, self.context, detail)

    def result(self, before: Table, after: Table | None, message: str, **numbers: Any) -> OperationResult:
        """The result; ``after`` is None when nothing was done."""
        return OperationResult(
            changed=numbers.pop("changed", after is not None),
            message=message,
            snapshot_before=before.metadata.current_snapshot_id,
            snapshot_after=(after or before).metadata.current_snapshot_id,
            duration_seconds=time.monotonic() - self.started,
            ignored_settings=self.request.ignored_settings,
            **numbers,
        )
