"""Expire snapshots with ``expire_snapshots``: foretold and held against the caps before, held against that after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.engines.base import OperationResult, RemoteJob
from airflow_provider_floe.engines.local.expire import check_expiry_caps, expiry_happened, unreachable_deletions
from airflow_provider_floe.engines.local.expire_commit import Removal, lost_refs
from airflow_provider_floe.engines.storage_check import gone, verify_storage
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.capabilities import CLEAN_METADATA, RETAIN_LAST
from airflow_provider_floe.engines.trino.job import Ended, Job, Submission
from airflow_provider_floe.errors import ConfigurationError, RetentionRefused, VerificationFailed
from airflow_provider_floe.iceberg.retention import MIN_SNAPSHOTS, ExpirePlan, snapshots_to_expire, undeletable_reason
from airflow_provider_floe.iceberg.unreachable import unreachable_after
from airflow_provider_floe.iceberg.unused_metadata import unused_metadata
from airflow_provider_floe.policies.model import ExpireSnapshots

_MARGIN = timedelta(seconds=5)
"""The server takes ages from when the query starts, which is a moment after we have looked at its clock."""


@dataclass(frozen=True)
class _Cut:
    """What Trino is asked for.

    :ivar threshold: age above which it expires.
    :ivar snapshot_ids: what that expires, foretold.
    """

    threshold: timedelta
    snapshot_ids: tuple[int, ...]


def submit(job: Submission) -> RemoteJob | OperationResult:
    """Have Trino expire what policy and table let go, as far as that can be said by age.

    :raises RetentionRefused: the table forbids deletion.
    :raises UnsafeOperation: a cap would be exceeded, or the clocks differ; nothing was deleted.
    """
    settings = _settings(job)
    before = job.load_table()
    if reason := undeletable_reason(before):
        raise RetentionRefused(f"{job.request.table}: {reason}")
    plan = snapshots_to_expire(before.metadata, settings, job.context.now())
    cut = _cut(job, before.metadata, settings, plan)
    wanted = settings.clean_expired_metadata and CLEAN_METADATA in job.understood
    unused = unused_metadata(before, cut.snapshot_ids) if wanted else None
    stays = unused.reason_to_keep("Trino") if unused else None
    cleans = unused is not None and unused.cleanable
    if not cut.snapshot_ids and not plan.refs_to_drop and not cleans:
        kept = f"; {len(plan.snapshot_ids)} are, but older ones are to be kept" if plan.snapshot_ids else ""
        kept += f"; {stays}" if stays else ""
        return OperationResult(changed=False, message=f"no snapshot is past retention{kept}")
    # Foretold, because afterwards nobody can read any more what the expired snapshots referenced
    deletions = unreachable_deletions(before, unreachable_after(before, before, without=cut.snapshot_ids))
    check_expiry_caps(settings, before, cut.snapshot_ids, deletions)
    job.context.journal.record_deletions(list(deletions))
    detail = {
        "table_uuid": str(before.metadata.table_uuid),
        "snapshot_ids": list(cut.snapshot_ids),
        "refs": list(plan.refs_to_drop),
    }
    call = _call(job, settings, before.metadata.properties, cut.threshold, cleans)
    return job.send(call, detail=detail, before=before, facts={**detail, "stays": stays})


def collect(job: Ended) -> OperationResult:
    """What was expired, held against what was to be kept.

    :raises VerificationFailed: Trino expired or deleted what it should not have.
    """
    job.require(lambda table: expiry_happened(table, job.facts))
    after = job.context.load_table()
    before = job.before(after)
    left = {snapshot.snapshot_id for snapshot in after.metadata.snapshots}
    expired = [s.snapshot_id for s in before.metadata.snapshots if s.snapshot_id not in left]
    _verify_expired(job, before, expired)
    _verify_refs(job, before, after, expired)
    job.context.committed(job.facts)
    stays = job.facts.get("stays")
    deletions = job.context.journal.recorded_deletions()
    deleted = gone(after, (deletion.path for deletion in deletions))
    verify_storage(job.context, job.request.table, "Trino")
    job.context.journal.mark_deleted(sorted(deleted))
    return OperationResult(
        changed=left != {s.snapshot_id for s in before.metadata.snapshots}
        or after.metadata.refs != before.metadata.refs,
        message=(
            f"expired {len(expired)} of {len(before.metadata.snapshots)} snapshots; deleted {len(deleted)} of "
            f"{len(deletions)} files that nothing references any more{f'; {stays}' if stays else ''}"
        ),
        snapshots_expired=len(expired),
        files_deleted=len(deleted),
        bytes_deleted=sum(deletion.size_bytes for deletion in deletions if deletion.path in deleted),
        snapshot_before=before.metadata.current_snapshot_id,
        snapshot_after=after.metadata.current_snapshot_id,
        details={**job.facts, "left_over": len(deletions) - len(deleted), **job.told},
    )


def _settings(job: Job) -> ExpireSnapshots:
    settings = job.request.settings
    if not isinstance(settings, ExpireSnapshots):
        raise ConfigurationError(f"expire_snapshots needs settings of expireSnapshots, not {type(settings).__name__}")
    return settings


def _cut(job: Submission, metadata: TableMetadata, settings: ExpireSnapshots, plan: ExpirePlan) -> _Cut:
    """The smallest age that expires nothing of what is to be kept.

    Trino counts no snapshots, unless it is new, and knows nothing of staged ones: whatever is to be kept, and is no
    branch's or tag's head, must be younger than the threshold.
    """
    heads = {ref.snapshot_id for name, ref in metadata.refs.items() if name not in plan.refs_to_drop}
    older_than = job.context.now() - settings.max_snapshot_age
    kept = [
        _time(s.timestamp_ms) for s in metadata.snapshots if s.snapshot_id in plan.kept and s.snapshot_id not in heads
    ]
    if any(time < older_than for time in kept):
        older_than = min(kept) - _MARGIN
    threshold, cutoff = job.retention_threshold(older_than)
    ids = tuple(
        s.snapshot_id for s in metadata.snapshots if _time(s.timestamp_ms) < cutoff and s.snapshot_id not in heads
    )
    return _Cut(threshold, ids)


def _call(
    job: Submission, settings: ExpireSnapshots, properties: Mapping[str, str], threshold: timedelta, cleans: bool
) -> str:
    arguments = [f"retention_threshold => {sql.milliseconds(-(-threshold // timedelta(milliseconds=1)))}"]
    if RETAIN_LAST in job.understood:
        floor = 0 if settings.allow_below_table_retention else int(properties.get(MIN_SNAPSHOTS, 0))
        arguments.append(f"retain_last => {max(settings.retain_last, floor)}")
    if cleans:
        arguments.append("clean_expired_metadata => true")
    return f"expire_snapshots({', '.join(arguments)})"


def _verify_expired(job: Ended, before: Table, expired: list[int]) -> None:
    """:raises VerificationFailed: when snapshots are gone that policy or table keep."""
    allowed = set(snapshots_to_expire(before.metadata, _settings(job), job.context.now()).snapshot_ids)
    if wrong := sorted(set(expired) - allowed):
        raise VerificationFailed(
            f"Trino expired snapshots {', '.join(map(str, wrong))} of {job.request.table}, which were to be kept: "
            f"{before.metadata_location} still describes them; report this"
        )


def _verify_refs(job: Job, before: Table, after: Table, expired: list[int]) -> None:
    """A catalog takes a ref with its snapshot, and Trino does not tell it which refs it has seen.

    :raises VerificationFailed: when a branch or tag was made on a snapshot at the moment in which that expired.
    """
    if lost := lost_refs(before, after, Removal(tuple(expired))):
        raise VerificationFailed(
            f"{', '.join(sorted(lost))} of {job.request.table} was made on a snapshot at the moment in which Trino "
            "expired that, and is lost. Make it anew on a snapshot that is there, and see that whoever makes branches "
            "and tags does so at other times, or use engine local, which gives them back"
        )


def _time(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
