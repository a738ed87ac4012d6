"""Compact position delete files on Spark: only where there is work, and rows and data files held against the parent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.changes import Change, change_of
from airflow_provider_floe.engines.spark import request as requests
from airflow_provider_floe.engines.spark.changes import own_snapshots, rows_to_count, verify_rows
from airflow_provider_floe.engines.spark.guards import refuse_unsafe
from airflow_provider_floe.engines.spark.task import Before, Begun, Order, SparkTask
from airflow_provider_floe.errors import ConfigurationError, VerificationFailed
from airflow_provider_floe.iceberg.delete_selection import select_position_deletes
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.policies.model import RewritePositionDeleteFiles
from airflow_provider_floe.text import bytes_text


def prepare(task: SparkTask) -> Order | OperationResult:
    """Find the position delete files that are small, or speak of data files that are gone."""
    settings = task.request.settings
    if not isinstance(settings, RewritePositionDeleteFiles):
        raise ConfigurationError(
            f"rewrite_position_delete_files needs settings of rewritePositionDeleteFiles, not {type(settings).__name__}"
        )
    task.context.checkpoint()
    before = task.context.load_table()
    known = Before.of(before)
    refuse_unsafe(before, deletes_files=False)
    files = list(live_files(before.io, snapshot_manifests(before)))
    selection = select_position_deletes(before.metadata, files, settings)
    if not selection.groups and not selection.dangling:
        return task.result(known, None, "no position delete file needs compacting, and none is dangling")
    step = requests.rewrite_position_delete_files(
        task.names, settings, selection.target_bytes, rewrite_all=bool(selection.dangling)
    )
    detail = {"table_uuid": str(before.metadata.table_uuid), "snapshot_before": known.current_snapshot_id}
    begun = Begun(before=known, detail=detail, facts={"dangling": len(selection.dangling)})
    return Order(begun, [step], count_rows=rows_to_count(before))


def report(task: SparkTask, begun: Begun, outcome: Mapping[str, Any]) -> OperationResult:
    """Hold what Spark committed against the metadata.

    :raises VerificationFailed: naming the snapshot to go back to.
    """
    before, after = begun.before, task.context.load_table()
    own = own_snapshots(before.snapshot_ids, after, task.evidence_id)
    if not own:
        return task.result(before, None, "Spark found no position delete file to rewrite")
    task.context.committed({**begun.detail, "snapshot_after": own[-1].snapshot_id})
    counts = outcome.get("counts") or {}
    changes: list[Change] = []
    for snapshot in own:
        change = change_of(after, snapshot)
        _refuse_data_changes(after, change, snapshot.snapshot_id, snapshot.parent_snapshot_id)
        verify_rows(after, snapshot, change, before.default_spec_id, counts.get(str(snapshot.snapshot_id)))
        changes.append(change)
    removed = sum(change.delete_files_removed for change in changes)
    added = sum(change.delete_files_added for change in changes)
    bytes_in = sum(change.delete_bytes_removed for change in changes)
    bytes_out = sum(change.delete_bytes_added for change in changes)
    details: dict[str, Any] = {
        "snapshots": [snapshot.snapshot_id for snapshot in own],
        **begun.facts,
        "spark": dict(outcome["rows"][0][0]) if outcome.get("rows") and outcome["rows"][0] else {},
        "application": outcome.get("application"),
    }
    return task.result(
        before,
        after,
        f"rewrote {removed} position delete files ({bytes_text(bytes_in)}) into {added} ({bytes_text(bytes_out)}); "
        f"{begun.facts['dangling']} of them applied to no data file any more",
        files_rewritten=removed,
        bytes_rewritten=bytes_in,
        files_added=added,
        bytes_added=bytes_out,
        delete_files_removed=removed - added,
        details=details,
    )


def _refuse_data_changes(table: Table, change: Change, snapshot_id: int, parent_id: int | None) -> None:
    if change.expected.files or change.added:
        raise VerificationFailed(
            f"snapshot {snapshot_id} of {'.'.join(table.name())} was to compact position deletes only, but removed "
            f"{change.expected.files} data files and added {len(change.added)}: roll back to snapshot {parent_id} "
            "before anything expires it"
        )
