"""Remove orphan files with ``remove_orphan_files``: found by us first, so that only what may go is there to find."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_floe.engines.base import Deletion, OperationResult
from airflow_provider_floe.engines.local.deletion import check_caps
from airflow_provider_floe.engines.storage_check import gone, verify_storage
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.job import Job
from airflow_provider_floe.errors import ConfigurationError, UnsafeOperation
from airflow_provider_floe.iceberg.orphan_search import MINIMUM_AGE, find_orphans
from airflow_provider_floe.policies.model import OrphanCleanup


def run(job: Job) -> OperationResult:
    """Remove files below the table's location that nothing references.

    :raises RetentionRefused: the table forbids deletion.
    :raises UnsafeLocation: the location is shared with another table, or paths mismatch.
    :raises UnsafeOperation: the listing is partial, a cap would be exceeded, or Trino would remove what is to stay;
        nothing was deleted.
    :raises VerificationFailed: Trino deleted what the table references.
    """
    settings = job.request.settings
    if not isinstance(settings, OrphanCleanup):
        raise ConfigurationError(f"remove_orphan_files needs settings of orphanCleanup, not {type(settings).__name__}")
    context = job.context
    table = job.load_table()
    search = find_orphans(
        table, settings, context.now(), reload=context.load_table, other_tables=context.other_tables()
    )
    if search.kept:
        raise UnsafeOperation(
            f"{job.request.table}: {search.kept} files that nothing references are never removed (metadata files, "
            "hidden files), and Trino cannot spare them: use engine local or spark"
        )
    if table.metadata.partition_statistics:
        raise UnsafeOperation(
            f"{job.request.table} has partition statistics, which Trino may take for orphans: use engine local"
        )
    check_caps(settings, files=len(search.orphans), size_bytes=search.orphan_bytes, of_files=search.listed)
    found = f"{len(search.orphans)} of {search.listed} files were orphans past retention"
    details = {"listed": search.listed, "orphans": len(search.orphans), "young": search.young}
    if not search.orphans:
        return OperationResult(
            changed=False, message=f"{found}; {search.young} are too young to judge", details=details
        )
    reason = "orphan: no snapshot, branch or tag references it"
    context.journal.record_deletions([Deletion(file.path, file.size_bytes, reason) for file in search.orphans])
    age = max(timedelta(days=settings.retention_period_in_days), MINIMUM_AGE)
    threshold, _ = job.retention_threshold(context.now() - age)
    done = job.execute(
        f"remove_orphan_files(retention_threshold => {sql.milliseconds(-(-threshold // timedelta(milliseconds=1)))})"
    )
    deleted = gone(table, (file.path for file in search.orphans))
    context.committed({"deleted": len(deleted)})
    context.journal.mark_deleted(sorted(deleted))
    verify_storage(job.context, job.request.table, "Trino")
    return OperationResult(
        changed=bool(deleted),
        message=f"{found}: {len(deleted)} deleted; {search.young} are too young to judge",
        files_deleted=len(deleted),
        bytes_deleted=sum(file.size_bytes for file in search.orphans if file.path in deleted),
        snapshot_before=table.metadata.current_snapshot_id,
        snapshot_after=table.metadata.current_snapshot_id,
        details={
            **details,
            "left_over": len(search.orphans) - len(deleted),
            "query_id": done.query_id,
            "reported": done.reported,
        },
    )
