"""What every operation on Spark has at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.spark.request import snapshot_properties
from airflow_provider_floe.engines.spark.route import SparkAccess
from airflow_provider_floe.health.report import Model


class Before(Model):
    """What has to be known of the table as it was, once Spark is done.

    :ivar schemas: number of schemas; ``specs`` of partition specs.
    """

    snapshot_ids: tuple[int, ...]
    current_snapshot_id: int | None
    default_spec_id: int
    schemas: int
    specs: int

    @classmethod
    def of(cls, table: Table) -> Before:
        """The table as loaded."""
        metadata = table.metadata
        return cls(
            snapshot_ids=tuple(snapshot.snapshot_id for snapshot in metadata.snapshots),
            current_snapshot_id=metadata.current_snapshot_id,
            default_spec_id=metadata.default_spec_id,
            schemas=len(metadata.schemas),
            specs=len(metadata.partition_specs),
        )


class Begun(Model):
    """What another process needs to tell what Spark did; it holds no secret.

    :ivar detail: for the record, before Spark may commit.
    :ivar facts: what the operation found out before.
    """

    before: Before
    detail: dict[str, Any]
    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What Spark is to do.

    :ivar steps: calls of procedures and of Java actions.
    :ivar mark: for the summaries of its snapshots, see :data:`MARK_PROPERTY`.
    :ivar count_rows: aggregates to compare for each snapshot of kind replace.
    :ivar views: files that it shall look at, by the name of the view.
    """

    begun: Begun
    steps: Sequence[Mapping[str, Any]]
    mark: str | None = None
    count_rows: str | None = None
    views: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SparkTask:
    """One operation on one table, on its way to Spark.

    :ivar names: Spark's name of the catalog, the namespace's levels, the table's name.
    """

    request: OperationRequest
    context: OperationContext
    route: SparkAccess
    names: tuple[str, ...]
    started: float = field(default_factory=time.monotonic)

    @property
    def evidence_id(self) -> str | None:
        """The operation id, where snapshots bear it."""
        return self.request.operation_id if self.route.java else None

    def document(self, order: Order) -> dict[str, Any]:
        """The request, as the job reads it."""
        deadline = self.request.deadline
        return {
            "operation": str(self.request.operation),
            "operation_id": self.request.operation_id,
            "table": list(self.names),
            "steps": list(order.steps),
            "views": dict(order.views),
            "snapshot_properties": snapshot_properties(self.request.operation_id, order.mark),
            "count_rows": order.count_rows,
            "known_snapshots": list(order.begun.before.snapshot_ids),
            "deadline": None if deadline is None else deadline.timestamp(),
        }

    def result(self, before: Before, after: Table | None, message: str, **numbers: Any) -> OperationResult:
        """The result; ``after`` is None when nothing was done."""
        return OperationResult(
            changed=numbers.pop("changed", after is not None),
            message=message,
            snapshot_before=before.current_snapshot_id,
            snapshot_after=after.metadata.current_snapshot_id if after else before.current_snapshot_id,
            duration_seconds=time.monotonic() - self.started,
            ignored_settings=self.request.ignored_settings,
            **numbers,
        )
