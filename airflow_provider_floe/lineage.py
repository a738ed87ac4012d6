"""What a task did, as OpenLineage tells it. Imported only where the extra ``openlineage`` is installed.

A table is named by its location, as OpenLineage's naming says and Spark does, so that maintenance stands at the dataset
that other jobs write; the name that policies use is its symlink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    Identifier,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    RunFacet,
    SymlinksDatasetFacet,
)
from airflow.providers.openlineage.extractors import OperatorLineage
from attrs import define
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

from airflow_provider_floe.maintenance.events import Event
from airflow_provider_floe.tables import TableRef

RUN_FACET = "floe_maintenance"
_NUMBERS = (
    "files_rewritten",
    "bytes_rewritten",
    "files_added",
    "bytes_added",
    "delete_files_removed",
    "manifests_rewritten",
    "manifests_added",
    "snapshots_expired",
    "files_deleted",
    "bytes_deleted",
    "files_quarantined",
)


@define
class FloeMaintenanceRunFacet(RunFacet):
    """What maintenance did: one entry for each operation."""

    operations: list[dict[str, Any]]


def operator_lineage(finished: Sequence[Event], locations: Mapping[TableRef, str]) -> OperatorLineage[Any, Any]:
    """Output datasets for the tables that changed, and the run facet for every operation.

    :param finished: events of kind OPERATION_FINISHED, in order.
    :param locations: of the tables that changed, where they are known.
    """
    changes: dict[TableRef, list[Mapping[str, Any]]] = {}
    for event in finished:
        if event.changed and event.table is not None:
            changes.setdefault(event.table.ref(), []).append(event.data["result"])
    facets = {RUN_FACET: FloeMaintenanceRunFacet(operations=[_operation(event) for event in finished])}
    return OperatorLineage(
        outputs=[_dataset(table, results, locations.get(table)) for table, results in changes.items()],
        run_facets=facets if finished else {},
    )


def _operation(event: Event) -> dict[str, Any]:
    result = event.data.get("result") or {}
    return {
        "table": str(event.table.ref()) if event.table else None,
        "operation": event.operation.value if event.operation else None,
        "outcome": event.data.get("outcome"),
        "changed": event.changed,
        "message": event.message,
        "plan_id": event.data.get("plan_id"),
        "operation_id": event.data.get("operation_id"),
        "policy": event.data.get("policy"),
        "engine": event.data.get("engine"),
        "duration_seconds": event.data.get("duration_seconds"),
        **{name: result[name] for name in _NUMBERS if result.get(name)},
    }


def _dataset(table: TableRef, results: Sequence[Mapping[str, Any]], location: str | None) -> Dataset:
    namespace, name = f"iceberg://{table.catalog}", ".".join((*table.namespace, table.name))
    facets: dict[str, Any] = {}
    if location:
        facets["symlinks"] = SymlinksDatasetFacet([Identifier(namespace=namespace, name=name, type="TABLE")])
        namespace, name = storage_name(location)
    snapshots = [result["snapshot_after"] for result in results if result.get("snapshot_after")]
    if snapshots:
        facets["version"] = DatasetVersionDatasetFacet(datasetVersion=str(snapshots[-1]))
    written = [sum(result.get(key, 0) for result in results) for key in ("bytes_added", "files_added")]
    statistics = OutputStatisticsOutputDatasetFacet(size=written[0], fileCount=written[1])
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets=facets,
        outputFacets={"outputStatistics": statistics} if any(written) else {},
    )


def storage_name(location: str) -> tuple[str, str]:
    """``s3://bucket`` and ``path/table``; ``file`` and ``/path/table``."""
    parts = urlsplit(location)
    if not parts.netloc:
        return "file", parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")
