"""Remove orphan files with ``remove_orphan_files``: found by us first, so that only what may go is there to find."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_floe.engines.base import Deletion, OperationResult, RemoteJob
from airflow_provider_floe.engines.local.deletion import check_caps
from airflow_provider_floe.engines.storage_check import gone, verify_storage
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.job import Ended, Submission
from airflow_provider_floe.errors import ConfigurationError, UnsafeOperation
from airflow_provider_floe.iceberg.orphan_search import MINIMUM_AGE, find_orphans
from airflow_provider_floe.policies.model import OrphanCleanup


def submit(job: Submission) -> RemoteJob | OperationResult:
    """Have Trino remove files below the table's location that nothing references.

    :raises RetentionRefused: the table forbids deletion.
    :raises UnsafeLocation: the location is shared with another table, or paths mismatch.
    :raises UnsafeOperation: the listing is partial, a cap would be exceeded, or Trino would remove what is to stay;
        nothing was deleted.
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
    details = {"listed": search.listed, "orphans": len(search.orphans), "young": search.young}
    if not search.orphans:
        return OperationResult(
            changed=False, message=f"{_found(details)}; {search.young} are too young to judge", details=details
        )
    reason = "orphan: no snapshot, branch or tag references it"
    context.journal.record_deletions([Deletion(file.path, file.size_bytes, reason) for file in search.orphans])
    age = max(timedelta(days=settings.retention_period_in_days), MINIMUM_AGE)
    threshold, _ = job.retention_threshold(context.now() - age)
    call = f"remove_orphan_files(retention_threshold => {sql.milliseconds(-(-threshold // timedelta(milliseconds=1)))})"
    return job.send(call, before=table, facts=details)


def collect(job: Ended) -> OperationResult:
    """Which files are gone.

    :raises VerificationFailed: Trino deleted what the table references.
    """
    job.require(lambda table: False)
    context, facts = job.context, job.facts
    table = context.load_table()
    orphans = context.journal.recorded_deletions()
    deleted = gone(table, (file.path for file in orphans))
    context.committed({"deleted": len(deleted)})
    context.journal.mark_deleted(sorted(deleted))
    verify_storage(context, job.request.table, "Trino")
    return OperationResult(
        changed=bool(deleted),
        message=(f"{_found(facts)}: {len(deleted)} deleted; {facts['young']} are too young to judge"),
        files_deleted=len(deleted),
        bytes_deleted=sum(file.size_bytes for file in orphans if file.path in deleted),
        snapshot_before=table.metadata.current_snapshot_id,
        snapshot_after=table.metadata.current_snapshot_id,
        details={**facts, "left_over": len(orphans) - len(deleted), **job.told},
    )


def _found(facts: Mapping[str, Any]) -> str:
    return f"{facts['orphans']} of {facts['listed']} files were orphans past retention"
