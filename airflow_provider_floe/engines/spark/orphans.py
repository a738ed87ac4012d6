"""Remove orphan files on Spark: it gets the orphans that we found, and deletes those that it too finds unreferenced."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_floe.engines.base import Deletion, OperationResult
from airflow_provider_floe.engines.local.deletion import check_caps
from airflow_provider_floe.engines.spark import request as requests
from airflow_provider_floe.engines.spark.guards import refuse_unsafe
from airflow_provider_floe.engines.spark.task import Before, Begun, Order, SparkTask
from airflow_provider_floe.engines.storage_check import verify_storage
from airflow_provider_floe.errors import ConfigurationError, VerificationFailed
from airflow_provider_floe.iceberg.orphan_search import MINIMUM_AGE, find_orphans, search_root
from airflow_provider_floe.iceberg.paths import path_key
from airflow_provider_floe.policies.model import OrphanCleanup

_CLOCKS = timedelta(minutes=5)
"""By how much Spark's clock may be behind ours: it refuses to look at files younger than a day."""


def prepare(task: SparkTask) -> Order | OperationResult:
    """Find the files below the table's location that nothing references.

    Spark's own listing would take metadata files and whatever the policy excludes for orphans. So it is handed the
    files to look at; what it finds referenced, by its own reading of the table just before it deletes, stays.

    :raises UnsafeLocation: the location is shared with another table, or paths mismatch.
    :raises UnsafeOperation: the listing is partial, or a cap would be exceeded; nothing was deleted.
    """
    settings = task.request.settings
    if not isinstance(settings, OrphanCleanup):
        raise ConfigurationError(f"remove_orphan_files needs settings of orphanCleanup, not {type(settings).__name__}")
    task.context.checkpoint()
    table = task.context.load_table()
    refuse_unsafe(table, deletes_files=True)
    now = task.context.now()
    search = find_orphans(
        table, settings, now, reload=task.context.load_table, other_tables=task.context.other_tables()
    )
    before = now - max(timedelta(days=settings.retention_period_in_days), MINIMUM_AGE + _CLOCKS)
    orphans = [file for file in search.orphans if file.modified is not None and file.modified < before]
    numbers = {"listed": search.listed, "orphans": len(orphans), "young": search.young, "kept": search.kept}
    if not orphans:
        return task.result(
            Before.of(table), None, f"none of {search.listed} files is an orphan past retention", details=numbers
        )
    size = sum(file.size_bytes for file in orphans)
    check_caps(settings, files=len(orphans), size_bytes=size, of_files=search.listed)
    deletions = [
        Deletion(file.path, file.size_bytes, "orphan: no snapshot, branch or tag references it; deleted by Spark")
        for file in orphans
    ]
    task.context.journal.record_deletions(deletions)
    step = requests.remove_orphan_files(task.names, search_root(table, settings), settings, before)
    views = {requests.ORPHANS_VIEW: requests.orphans_view(orphans)}
    begun = Begun(before=Before.of(table), detail={"table_uuid": str(table.metadata.table_uuid)}, facts=numbers)
    return Order(begun, [step], views=views)


def report(task: SparkTask, begun: Begun, outcome: Mapping[str, Any]) -> OperationResult:
    """Hold what Spark says it deleted against what it was handed.

    :raises VerificationFailed: Spark deleted what it was not handed.
    """
    deletions = task.context.journal.recorded_deletions()
    handed = {path_key(deletion.path): deletion for deletion in deletions}
    reported = [path_key(row["orphan_file_location"]) for row in outcome["rows"][0]]
    if strange := [path for path in reported if path not in handed]:
        raise VerificationFailed(
            f"{task.request.table}: Spark deleted {len(strange)} files that it was not to look at, for example "
            f"{strange[0]}: check that the table can be read"
        )
    deleted = [handed[path] for path in reported]
    task.context.journal.mark_deleted([deletion.path for deletion in deleted])
    verify_storage(task.context, task.request.table, "Spark")
    task.context.committed(begun.detail)
    spared = len(deletions) - len(deleted)
    return task.result(
        begun.before,
        None,
        f"{len(deletions)} of {begun.facts['listed']} files were orphans past retention: Spark deleted {len(deleted)} "
        f"and spared {spared}; {begun.facts['young']} are too young to judge",
        changed=bool(deleted),
        files_deleted=len(deleted),
        bytes_deleted=sum(deletion.size_bytes for deletion in deleted),
        details={**begun.facts, "spared": spared, "application": outcome.get("application")},
    )
