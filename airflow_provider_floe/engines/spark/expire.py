"""Expire snapshots on Spark: exactly those that policy and retention let go, with the deletions foretold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local.expire import check_expiry_caps, unreachable_deletions
from airflow_provider_floe.engines.local.expire_commit import Removal
from airflow_provider_floe.engines.spark import request as requests
from airflow_provider_floe.engines.spark.guards import refuse_unsafe
from airflow_provider_floe.engines.spark.task import Before, Begun, Order, SparkTask
from airflow_provider_floe.engines.storage_check import gone, verify_storage
from airflow_provider_floe.errors import ConfigurationError, RetentionRefused, VerificationFailed
from airflow_provider_floe.iceberg.retention import MIN_SNAPSHOTS, ExpirePlan, snapshots_to_expire
from airflow_provider_floe.iceberg.unreachable import unreachable_after
from airflow_provider_floe.iceberg.unused_metadata import unused_metadata
from airflow_provider_floe.policies.model import ExpireSnapshots
from airflow_provider_floe.text import bytes_text


def prepare(task: SparkTask) -> Order | OperationResult:
    """Choose the snapshots to expire by id; Spark deletes the files that nothing references then.

    The ids are chosen here, by the rules of the local engine, so that Spark's own idea of age plays no part. What
    it will delete is computed before, held against the caps and journaled; what it says it deleted, against that.

    :raises RetentionRefused: the table forbids it, or Spark would expire more than the policy.
    :raises UnsafeOperation: a cap would be exceeded; nothing was done.
    """
    settings = task.request.settings
    if not isinstance(settings, ExpireSnapshots):
        raise ConfigurationError(f"expire_snapshots needs settings of expireSnapshots, not {type(settings).__name__}")
    task.context.checkpoint()
    before = task.context.load_table()
    refuse_unsafe(before, deletes_files=True)
    now = task.context.now()
    plan = snapshots_to_expire(before.metadata, settings, now)
    unused = unused_metadata(before, plan.snapshot_ids) if settings.clean_expired_metadata else None
    stays = unused.reason_to_keep("Spark") if unused else None
    cleans = unused is not None and unused.cleanable
    if plan.empty and not cleans:
        return task.result(
            Before.of(before), None, "; ".join(["no snapshot is past retention", *([stays] if stays else [])])
        )
    _refuse_more_than_planned(before, plan, now)
    deletions = unreachable_deletions(before, unreachable_after(before, before, without=plan.snapshot_ids))
    check_expiry_caps(settings, before, plan.snapshot_ids, deletions)
    task.context.journal.record_deletions(list(deletions))
    removal = Removal(plan.snapshot_ids, plan.refs_to_drop)
    steps = [] if plan.empty else [requests.expire_snapshots(task.names, plan.snapshot_ids)]
    if cleans:  # by itself, since a call counts what it expires by id as a user of schemas
        steps.append(requests.expire_snapshots(task.names, (), clean_metadata=True))
    facts = {"refs": list(plan.refs_to_drop), "stays": stays}
    return Order(Begun(before=Before.of(before), detail=removal.detail(before), facts=facts), steps)


def _refuse_more_than_planned(table: Table, plan: ExpirePlan, now: datetime) -> None:
    """Spark applies what branches and tags set for themselves, also where the policy would keep more."""
    metadata = table.metadata
    now_ms = int(now.timestamp() * 1000)
    default = int(metadata.properties.get(MIN_SNAPSHOTS, 1))
    for name, ref in metadata.refs.items():
        if name in plan.refs_to_drop:
            continue
        if (
            name != "main"
            and ref.max_ref_age_ms is not None
            and _age(table, ref.snapshot_id, now_ms) > (ref.max_ref_age_ms)
        ):
            raise RetentionRefused(f"Spark would drop {ref.snapshot_ref_type} {name}, past its age: use engine local")
        if ref.snapshot_ref_type is not SnapshotRefType.BRANCH or ref.max_snapshot_age_ms is None:
            continue
        depth, snapshot = 0, metadata.snapshot_by_id(ref.snapshot_id)
        while snapshot is not None:
            old = depth >= (ref.min_snapshots_to_keep or default)
            old = old and now_ms - snapshot.timestamp_ms >= ref.max_snapshot_age_ms
            if old and snapshot.snapshot_id not in plan.snapshot_ids:
                raise RetentionRefused(
                    f"branch {name} sets a snapshot age of its own, by which Spark would expire snapshot "
                    f"{snapshot.snapshot_id}, which the policy keeps ({plan.kept.get(snapshot.snapshot_id)}): use "
                    "engine local, or let the policy keep less"
                )
            parent = snapshot.parent_snapshot_id
            depth, snapshot = depth + 1, metadata.snapshot_by_id(parent) if parent is not None else None


def _age(table: Table, snapshot_id: int, now_ms: int) -> int:
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    return 0 if snapshot is None else now_ms - snapshot.timestamp_ms


def report(task: SparkTask, begun: Begun, outcome: Mapping[str, Any]) -> OperationResult:
    """Hold what Spark says it deleted against what was foretold.

    :raises VerificationFailed: more is gone than was to go.
    """
    before, after = begun.before, task.context.load_table()
    task.context.committed(begun.detail)
    deletions = task.context.journal.recorded_deletions()
    reported = dict(outcome["rows"][0][0]) if outcome else {}
    deleted = sum(int(count or 0) for name, count in reported.items() if name.startswith("deleted_"))
    left = {snapshot.snapshot_id for snapshot in after.metadata.snapshots}
    expired = [snapshot_id for snapshot_id in before.snapshot_ids if snapshot_id not in left]
    planned = begun.detail["snapshot_ids"]
    more = set(expired) - set(planned)
    if more or deleted > len(deletions):
        raise VerificationFailed(
            f"{task.request.table}: {len(expired)} snapshots are gone and Spark deleted {deleted} files, but "
            f"{len(planned)} snapshots and {len(deletions)} files were to go: something else expired "
            "snapshots meanwhile, or Spark deleted what it should not have. Check that the table can be read"
        )
    if deleted < len(deletions):  # a concurrent commit needs some, or Spark could not delete them
        absent = gone(after, (one.path for one in deletions))
        deletions = [one for one in deletions if one.path in absent]
    task.context.journal.mark_deleted([deletion.path for deletion in deletions])
    size = sum(deletion.size_bytes for deletion in deletions)
    verify_storage(task.context, task.request.table, "Spark")
    schemas = before.schemas - len(after.metadata.schemas)
    specs = before.specs - len(after.metadata.partition_specs)
    dropped = [name for name in begun.facts["refs"] if name not in after.metadata.refs]
    parts = [f"expired {len(expired)} of {len(before.snapshot_ids)} snapshots"]
    if dropped:
        parts.append(f"dropped {', '.join(dropped)}, past their age")
    if schemas or specs:
        parts.append(f"removed {schemas} unused schemas and {specs} unused specs")
    if stays := begun.facts.get("stays"):
        parts.append(stays)
    parts.append(f"Spark deleted {len(deletions)} files ({bytes_text(size)}) that nothing references any more")
    return task.result(
        before,
        after,
        "; ".join(parts),
        changed=bool(expired or dropped or schemas or specs),
        snapshots_expired=len(expired),
        files_deleted=len(deletions),
        bytes_deleted=size,
        details={"spark": reported, "application": outcome.get("application"), "refs": dropped},
    )
