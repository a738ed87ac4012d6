"""Rewrite data files on Spark: only where there is work, and held against the metadata afterwards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.changes import Change, change_of
from airflow_provider_floe.engines.spark import request as requests
from airflow_provider_floe.engines.spark.changes import own_snapshots, rows_to_count, verify_rows
from airflow_provider_floe.engines.spark.guards import refuse_unsafe
from airflow_provider_floe.engines.spark.task import Before, Begun, Order, SparkTask
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.delete_selection import delete_target_size
from airflow_provider_floe.iceberg.filters import matching_paths
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.marks import marked_snapshots
from airflow_provider_floe.iceberg.selection import Selection, select_rewrite
from airflow_provider_floe.policies.model import RewriteDataFiles, RewritePositionDeleteFiles

log = logging.getLogger(__name__)


def prepare(task: SparkTask) -> Order | OperationResult:
    """Find the data files that are too small, too large, under deletes, or not in order."""
    settings = _settings(task)
    task.context.checkpoint()
    before = task.context.load_table()
    known = Before.of(before)
    refuse_unsafe(before, deletes_files=False)
    selection = _selection(before, settings)
    if not selection.groups and not selection.dangling:
        return task.result(known, None, "no data file needs rewriting")
    unordered = _unordered(before, settings, selection)
    steps = [requests.rewrite_data_files(task.names, before.metadata, settings, rewrite_all=unordered)]
    if settings.remove_dangling_deletes and before.metadata.format_version < 3:
        # The rewrite itself leaves delete files that are as young as the new data files
        deletes = RewritePositionDeleteFiles()
        target = delete_target_size(before.metadata, deletes)
        steps.append(requests.rewrite_position_delete_files(task.names, deletes, target, rewrite_all=True))
    detail = {"table_uuid": str(before.metadata.table_uuid), "snapshot_before": known.current_snapshot_id}
    return Order(
        Begun(before=known, detail=detail),
        steps,
        mark=selection.mark if settings.strategy != "BINPACK" else None,
        count_rows=rows_to_count(before),
    )


def report(task: SparkTask, begun: Begun, outcome: Mapping[str, Any]) -> OperationResult:
    """Hold what Spark committed against the metadata.

    :raises VerificationFailed: naming the snapshot to go back to.
    """
    after = task.context.load_table()
    own = own_snapshots(begun.before.snapshot_ids, after, task.evidence_id)
    if not own:
        return task.result(begun.before, None, "Spark found no data file to rewrite")
    task.context.committed({**begun.detail, "snapshot_after": own[-1].snapshot_id})
    return _report(task, _settings(task), begun.before, after, own, outcome)


def _settings(task: SparkTask) -> RewriteDataFiles:
    settings = task.request.settings
    if not isinstance(settings, RewriteDataFiles):
        raise ConfigurationError(f"rewrite_data_files needs its own settings, not {type(settings).__name__}")
    return settings


def _selection(table: Table, settings: RewriteDataFiles) -> Selection:
    files = list(live_files(table.io, snapshot_manifests(table)))
    matching = matching_paths(table, settings.filter) if settings.filter else None
    return select_rewrite(table.metadata, files, settings, matching)


def _unordered(table: Table, settings: RewriteDataFiles, selection: Selection) -> bool:
    """Whether a file may stand outside the order asked for: the snapshot that added it would say that it does not."""
    if settings.strategy == "BINPACK":
        return False
    ordered = marked_snapshots(table.metadata, selection.mark)
    return any(file.snapshot_id not in ordered for group in selection.groups for file in group.files)


def _report(
    task: SparkTask,
    settings: RewriteDataFiles,
    before: Before,
    after: Table,
    own: Sequence[Snapshot],
    outcome: Mapping[str, Any],
) -> OperationResult:
    spec_id = settings.output_spec_id if settings.output_spec_id is not None else before.default_spec_id
    counts = outcome.get("counts") or {}
    changes: list[Change] = []
    for snapshot in own:
        change = change_of(after, snapshot)
        verify_rows(after, snapshot, change, spec_id, counts.get(str(snapshot.snapshot_id)))
        changes.append(change)
    rewritten = sum(change.expected.files for change in changes)
    added = sum(len(change.added) for change in changes)
    reported = dict(outcome["rows"][0][0]) if outcome.get("rows") and outcome["rows"][0] else {}
    failed = int(reported.get("failed_data_files_count") or 0)
    for name, found in (("rewritten_data_files_count", rewritten), ("added_data_files_count", added)):
        if name in reported and int(reported[name]) != found:
            log.warning("%s: Spark reports %s=%s, its commits %s", task.request.table, name, reported[name], found)
    details: dict[str, Any] = {
        "snapshots": [snapshot.snapshot_id for snapshot in own],
        "spark": reported,
        "application": outcome.get("application"),
    }
    if failed:
        details["failed_commits"] = failed
    return task.result(
        before,
        after,
        f"rewrote {rewritten} data files into {added} in {len(own)} commits"
        + (f"; {failed} files were left as they are, because their commits failed" if failed else ""),
        files_rewritten=rewritten,
        bytes_rewritten=sum(change.bytes_removed for change in changes),
        files_added=added,
        bytes_added=sum(change.bytes_added for change in changes),
        delete_files_removed=sum(change.delete_files_removed - change.delete_files_added for change in changes),
        details=details,
    )
