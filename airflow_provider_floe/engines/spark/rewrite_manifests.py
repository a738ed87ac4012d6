"""Rewrite manifests on Spark: only where there is work, and every live file held against the parent afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.spark import request as requests
from airflow_provider_floe.engines.spark.changes import own_snapshots, verify_same_files
from airflow_provider_floe.engines.spark.guards import refuse_unsafe
from airflow_provider_floe.engines.spark.task import Before, Begun, Order, SparkTask
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.manifest_selection import (
    clustering_fields,
    group_bytes,
    manifest_mark,
    matches,
    select_manifests,
)
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import RewriteManifests

_GROUP_BYTES = group_bytes(16 * 1024**3)


def prepare(task: SparkTask) -> Order | OperationResult:
    """Find the manifests that are too small, too large or not clustered."""
    settings = task.request.settings
    if not isinstance(settings, RewriteManifests):
        raise ConfigurationError(f"rewrite_manifests needs its own settings, not {type(settings).__name__}")
    task.context.checkpoint()
    before = task.context.load_table()
    known = Before.of(before)
    refuse_unsafe(before, deletes_files=False, rewrites_manifests=True)
    clustering_fields(before.metadata, settings, before.metadata.default_spec_id)
    manifests = snapshot_manifests(before)
    mark = manifest_mark(before.metadata, settings)
    spec_ids = {group.spec_id for group in select_manifests(before.metadata, manifests, settings, _GROUP_BYTES)}
    if not spec_ids:
        return task.result(known, None, f"none of {len(manifests)} manifests needs rewriting")
    steps = [
        requests.rewrite_manifests(task.names, settings, spec_id, _chosen(before, settings, spec_id, manifests))
        for spec_id in sorted(spec_ids)
    ]
    detail = {"table_uuid": str(before.metadata.table_uuid), "snapshot_before": known.current_snapshot_id}
    return Order(Begun(before=known, detail=detail, facts={"manifests": len(manifests)}), steps, mark=mark)


def report(task: SparkTask, begun: Begun, outcome: Mapping[str, Any]) -> OperationResult:
    """Hold what Spark committed against the metadata.

    :raises VerificationFailed: naming the snapshot to go back to.
    """
    after = task.context.load_table()
    own = own_snapshots(begun.before.snapshot_ids, after, task.evidence_id)
    if not own:
        return task.result(begun.before, None, "Spark found no manifests to rewrite")
    task.context.committed({**begun.detail, "snapshot_after": own[-1].snapshot_id})
    rewritten = added = 0
    for snapshot in own:
        verify_same_files(after, snapshot)
        parents = {one.manifest_path for one in snapshot_manifests(after, snapshot.parent_snapshot_id)}
        ours = {one.manifest_path for one in snapshot_manifests(after, snapshot.snapshot_id)}
        rewritten, added = rewritten + len(parents - ours), added + len(ours - parents)
    details: dict[str, Any] = {
        "snapshots": [snapshot.snapshot_id for snapshot in own],
        "spark": [rows[0] for rows in outcome.get("rows", ()) if rows],
        "application": outcome.get("application"),
    }
    return task.result(
        begun.before,
        after,
        f"rewrote {rewritten} of {begun.facts['manifests']} manifests into {added}",
        manifests_rewritten=rewritten,
        manifests_added=added,
        details=details,
    )


def _chosen(table: Table, settings: RewriteManifests, spec_id: int, manifests: list[ManifestFile]) -> list[str] | None:
    if settings.rewrite_if is None:
        return None
    spec = table.metadata.specs()[spec_id]
    return [
        one.manifest_path
        for one in manifests
        if one.partition_spec_id == spec_id and matches(one, settings.rewrite_if, table.metadata, spec)
    ]
