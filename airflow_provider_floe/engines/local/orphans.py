"""Remove orphan files: find them, hold them against the caps, delete or set them aside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import Deletion, OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.deletion import (
    QUARANTINE_FOLDER,
    DeletionOutcome,
    Deletions,
    check_caps,
    delete_unreferenced,
    to_quarantine,
)
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.listing import ListedFile, list_files
from airflow_provider_floe.iceberg.orphan_search import OrphanSearch, find_orphans
from airflow_provider_floe.iceberg.reachability import ReferenceWalk
from airflow_provider_floe.policies.model import OrphanCleanup


def run(request: OperationRequest, context: OperationContext, memory_limit_bytes: int) -> OperationResult:
    """Remove files below the table's location that nothing references, and quarantined files past their time.

    :param memory_limit_bytes: what the comparison of listed and referenced files keeps to; it spills to disk.
    :raises RetentionRefused: the table forbids deletion.
    :raises UnsafeLocation: the location is shared with another table, or paths mismatch.
    :raises UnsafeOperation: the listing is partial, or a cap would be exceeded; nothing was deleted.
    """
    started = time.monotonic()
    settings = request.settings
    if not isinstance(settings, OrphanCleanup):
        raise ConfigurationError(f"remove_orphan_files needs settings of orphanCleanup, not {type(settings).__name__}")
    context.checkpoint()
    table = context.load_table()
    search = find_orphans(
        table,
        settings,
        context.now(),
        reload=context.load_table,
        other_tables=context.other_tables(),
        dead_outputs=context.dead_outputs(),
        memory_limit_bytes=memory_limit_bytes,
        checkpoint=context.checkpoint,
    )
    size = search.orphan_bytes + sum(file.size_bytes for file in search.dead)
    check_caps(settings, files=len(search.orphans) + len(search.dead), size_bytes=size, of_files=search.listed)
    deletions = Deletions(len(search.orphans) + len(search.dead), size, lambda: _deletions(search))
    if settings.quarantine is not None:
        deletions = to_quarantine(table, request.operation_id, deletions)
    outcome = delete_unreferenced(context, table, deletions, search.walk)
    purged = _purge(request, context, table, settings.quarantine, search.walk)
    total = outcome + purged
    return OperationResult(
        changed=bool(total.deleted or total.quarantined),
        message=(
            f"{len(search.orphans)} of {search.listed} files were orphans past retention: {outcome.deleted} deleted, "
            f"{outcome.quarantined} set aside, {outcome.spared} spared; {search.young} are too young to judge; "
            f"{len(search.dead)} files of dead operations and {purged.deleted} files past quarantine removed"
        ),
        files_deleted=total.deleted,
        files_quarantined=total.quarantined,
        bytes_deleted=total.bytes_deleted,
        snapshot_before=table.metadata.current_snapshot_id,
        snapshot_after=table.metadata.current_snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=request.ignored_settings,
        details={
            "listed": search.listed,
            "orphans": len(search.orphans),
            "young": search.young,
            "kept": search.kept,
            "dead_outputs": len(search.dead),
            "spared": outcome.spared,
            "purged": purged.deleted,
            "bytes_quarantined": total.bytes_quarantined,
        },
    )


def _deletions(search: OrphanSearch) -> Iterator[Deletion]:
    for files, reason in (
        (search.orphans, "orphan: no snapshot, branch or tag references it"),
        (search.dead, "written by an operation that died before it committed"),
    ):
        for file in files:
            yield Deletion(file.path, file.size_bytes, reason)


def _purge(
    request: OperationRequest,
    context: OperationContext,
    table: Table,
    keep: timedelta | None,
    walk: ReferenceWalk,
) -> DeletionOutcome:
    """Delete the quarantine folders whose newest file was moved there longer ago than the policy keeps them."""
    if keep is None:
        return DeletionOutcome()
    folder = f"{table.location().rstrip('/')}/{QUARANTINE_FOLDER}/"
    by_operation: dict[str, list[ListedFile]] = {}
    for batch in list_files(table.io, folder):
        for file in batch:
            by_operation.setdefault(file.path[len(folder) :].partition("/")[0], []).append(file)
    oldest = context.now() - keep
    over = [
        Deletion(file.path, file.size_bytes, f"quarantine of operation {operation} is over")
        for operation, files in by_operation.items()
        if operation != request.operation_id
        and all(file.modified is not None and file.modified < oldest for file in files)
        for file in files
    ]
    return delete_unreferenced(context, table, Deletions.of(over), walk)
