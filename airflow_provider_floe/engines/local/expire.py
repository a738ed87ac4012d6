"""Expire snapshots: remove them from the metadata, then delete exactly the files that became unreachable."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import Deletion, OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import wait_or_give_up
from airflow_provider_floe.engines.local.deletion import (
    DeletionOutcome,
    Deletions,
    check_caps,
    delete_unreferenced,
    to_quarantine,
)
from airflow_provider_floe.engines.local.expire_commit import (
    Removal,
    commit_removal,
    removal_happened,
    restore_lost_refs,
)
from airflow_provider_floe.errors import CommitOutcomeUnknown, ConfigurationError, RetentionRefused, UnsafeOperation
from airflow_provider_floe.iceberg.reachability import FileKind, read_manifest_lists
from airflow_provider_floe.iceberg.retention import ExpirePlan, snapshots_to_expire, undeletable_reason
from airflow_provider_floe.iceberg.unreachable import Unreachable, unreachable_after
from airflow_provider_floe.iceberg.unused_metadata import unused_metadata
from airflow_provider_floe.policies.model import ExpireSnapshots
from airflow_provider_floe.text import bytes_text


def run(request: OperationRequest, context: OperationContext, memory_limit_bytes: int) -> OperationResult:
    """Expire snapshots of a table by policy and retention.

    :param memory_limit_bytes: unused: files that become unreachable are held on disk, some 33 bytes of each in memory.
    :raises RetentionRefused: the table forbids deletion, or a branch or tag needs the snapshot.
    :raises UnsafeOperation: a cap would be exceeded, or what is referenced is not known for sure; nothing was deleted.
    :raises CommitConflict: others kept committing first; nothing was changed.
    :raises CommitOutcomeUnknown: see :func:`expiry_happened`; nothing was deleted.
    """
    started = time.monotonic()
    settings = request.settings
    if not isinstance(settings, ExpireSnapshots):
        raise ConfigurationError(f"expire_snapshots needs settings of expireSnapshots, not {type(settings).__name__}")
    committed = _commit(request, context, settings)
    if committed is None:
        return OperationResult.unchanged(request, None, "no snapshot is past retention", started)
    before, removal, foretold = committed
    try:
        after = restore_lost_refs(context.load_table, before, removal)
        context.committed(removal.detail(before))
    except UnsafeOperation:
        raise
    except Exception as error:
        raise CommitOutcomeUnknown(
            f"{request.table}: {len(removal.snapshot_ids)} snapshots were expired, but what followed failed "
            f"({type(error).__name__}: {error}); no file was deleted"
        ) from error
    left = {snapshot.snapshot_id for snapshot in after.metadata.snapshots}
    expired = sum(snapshot_id not in left for snapshot_id in removal.snapshot_ids)
    unreachable = foretold.confirmed(before, after)
    deletions = unreachable_deletions(before, unreachable)
    check_expiry_caps(settings, before, removal.snapshot_ids, deletions)
    if settings.quarantine is not None:
        deletions = to_quarantine(after, request.operation_id, deletions)
    outcome = delete_unreferenced(context, before, deletions, unreachable.walk)
    return OperationResult(
        changed=True,
        message=_message(before, removal, expired, outcome),
        snapshots_expired=expired,
        files_deleted=outcome.deleted,
        files_quarantined=outcome.quarantined,
        bytes_deleted=outcome.bytes_deleted,
        snapshot_before=before.metadata.current_snapshot_id,
        snapshot_after=after.metadata.current_snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=request.ignored_settings,
        details={**removal.detail(before), "spared": outcome.spared, "bytes_quarantined": outcome.bytes_quarantined},
    )


def expiry_happened(table: Table, detail: Mapping[str, Any]) -> bool:
    """Whether the expiry that announced ``detail`` before its commit is in the table.

    :param detail: what :meth:`OperationContext.committing` was given.
    """
    return removal_happened(table, detail)


def _commit(
    request: OperationRequest, context: OperationContext, settings: ExpireSnapshots
) -> tuple[Table, Removal, Unreachable] | None:
    """The table as it was right before the commit, what was removed, and the files that this was foretold to free.

    Foretelling reads every manifest, so whatever cannot be read, and every cap, stops the run before the commit.

    :returns: None when there is nothing to remove.
    """
    foretold: tuple[Removal, Unreachable] | None = None
    refused = 0
    while True:
        context.checkpoint()
        table = context.load_table()
        if reason := undeletable_reason(table):
            raise RetentionRefused(f"{request.table}: {reason}")
        removal = _removal(table, settings, snapshots_to_expire(table.metadata, settings, context.now()))
        if removal.empty:
            return None
        if foretold is None or foretold[0] != removal:
            foretold = removal, unreachable_after(table, table, without=removal.snapshot_ids)
            check_expiry_caps(settings, table, removal.snapshot_ids, unreachable_deletions(table, foretold[1]))
            continue  # that took time: the commit is made on the table as it is now
        if commit_removal(context, table, removal):
            return table, removal, foretold[1]
        refused += 1
        wait_or_give_up(table, refused)


def _removal(table: Table, settings: ExpireSnapshots, plan: ExpirePlan) -> Removal:
    if not settings.clean_expired_metadata:
        return Removal(plan.snapshot_ids, plan.refs_to_drop)
    unused = unused_metadata(table, plan.snapshot_ids)
    return Removal(plan.snapshot_ids, plan.refs_to_drop, unused.schema_ids, unused.spec_ids)


def unreachable_deletions(before: Table, unreachable: Unreachable) -> Deletions:
    """The files to delete.

    :param before: the table while it still referenced them.
    """
    files = unreachable.files
    reasons = {
        kind: f"{kind} unreachable after expiring snapshots (was in {before.metadata_location})" for kind in FileKind
    }
    return Deletions(
        len(files),
        files.size_bytes,
        lambda: (Deletion(file.path, file.size_bytes or 0, reasons[file.kind]) for file in files),
    )


def check_expiry_caps(
    settings: ExpireSnapshots, before: Table, snapshot_ids: Collection[int], deletions: Deletions
) -> None:
    """Hold an expiry against the policy's caps.

    ``maxDeleteShare`` refers to the files deleted and those of the current snapshot together.

    :param snapshot_ids: the snapshots that expire.
    :raises UnsafeOperation: naming the cap, its value and what was found.
    """
    current = before.metadata.current_snapshot()
    live = 0
    if current is not None and current.snapshot_id not in snapshot_ids:
        for found in read_manifest_lists(before, [current]):
            live = sum(1 + manifest.files for manifest in found.manifests)
    check_caps(settings, files=len(deletions), size_bytes=deletions.size_bytes, of_files=live + len(deletions))


def _message(before: Table, removal: Removal, expired: int, outcome: DeletionOutcome) -> str:
    parts = [f"expired {expired} of {len(before.metadata.snapshots)} snapshots"]
    if kept := len(removal.snapshot_ids) - expired:
        parts.append(f"gave {kept} snapshots back to branches or tags created meanwhile")
    if removal.refs:
        parts.append(f"dropped {', '.join(removal.refs)}, past their age")
    if removal.schema_ids or removal.spec_ids:
        parts.append(f"removed {len(removal.schema_ids)} unused schemas and {len(removal.spec_ids)} unused specs")
    parts.append(
        f"deleted {outcome.deleted} files ({bytes_text(outcome.bytes_deleted)}) that nothing references any more"
    )
    if outcome.quarantined:
        parts.append(f"set {outcome.quarantined} files ({bytes_text(outcome.bytes_quarantined)}) aside")
    return "; ".join(parts)
