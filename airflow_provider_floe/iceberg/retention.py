"""Which snapshots to expire: Iceberg's retention algorithm, with the table's own settings as floors (promise 9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.errors import ConfigurationError, RetentionRefused
from airflow_provider_floe.iceberg.features import is_encrypted
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import ExpireSnapshots

MAX_SNAPSHOT_AGE = "history.expire.max-snapshot-age-ms"
MIN_SNAPSHOTS = "history.expire.min-snapshots-to-keep"
MAX_REF_AGE = "history.expire.max-ref-age-ms"


@dataclass(frozen=True)
class ExpirePlan:
    """What an expiry would remove from the metadata.

    :ivar kept: for each snapshot that stays, why.
    :ivar refs_to_drop: branches and tags older than the age that they, or the table, set for refs.
    """

    snapshot_ids: tuple[int, ...] = ()
    kept: Mapping[int, str] = field(default_factory=dict)
    refs_to_drop: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing to remove."""
        return not self.snapshot_ids and not self.refs_to_drop


@dataclass(frozen=True)
class _Retention:
    """How much history a branch keeps."""

    min_snapshots: int
    max_age_ms: int


def undeletable_reason(table: Table) -> str | None:
    """Why no file of the table may be deleted (promise 8); None when files may be."""
    properties = table.metadata.properties
    if properties.get("gc.enabled", "true").strip().lower() == "false":
        return (
            "gc.enabled=false on the table forbids deleting its files: other branches or catalogs may use them. Nessie "
            "sets it by default, use its own GC; else set gc.enabled=true if this catalog alone owns the table"
        )
    if is_encrypted(table):
        return "the table is encrypted (encryption.key-id): which files its encrypted metadata uses cannot be read"
    return None


def snapshots_to_expire(metadata: TableMetadata, settings: ExpireSnapshots, now: datetime) -> ExpirePlan:
    """Apply the policy and the table's own retention at a moment (UTC). Pure.

    :raises RetentionRefused: when ``expireSnapshotId`` names a snapshot that a branch or tag needs, naming it.
    :raises ConfigurationError: when a ``history.expire.*`` property is no number.
    """
    if settings.expire_snapshot_id is not None:
        return _just_one(metadata, settings, settings.expire_snapshot_id, now)
    policy = _Retention(settings.retain_last, int(settings.max_snapshot_age.total_seconds() * 1000))
    return _plan(metadata, policy, settings.allow_below_table_retention, _millis(now))


def expire_work(table: Table, settings: ExpireSnapshots, now: datetime) -> Work:
    """What an expiry would find to do, and why it must not run where that is so."""
    if reason := undeletable_reason(table):
        return Work(found=False, summary="snapshots may not be expired", refusal=reason)
    try:
        plan = snapshots_to_expire(table.metadata, settings, now)
    except (RetentionRefused, ConfigurationError) as error:
        return Work(found=False, summary="snapshots may not be expired", refusal=str(error))
    total = len(table.metadata.snapshots)
    count = len(plan.snapshot_ids)
    refs = f", with {len(plan.refs_to_drop)} branches and tags past their age" if plan.refs_to_drop else ""
    summary = f"{count} of {total} snapshots are past retention{refs}"
    if not plan.empty:
        return Work(found=True, summary=summary, snapshots=count)
    if settings.clean_expired_metadata and (len(table.metadata.schemas) > 1 or len(table.metadata.partition_specs) > 1):
        return Work(found=None, summary=f"{summary}; unused schemas and specs are known only after reading manifests")
    return Work(found=False, summary=summary)


def _just_one(metadata: TableMetadata, settings: ExpireSnapshots, snapshot_id: int, now: datetime) -> ExpirePlan:
    if metadata.snapshot_by_id(snapshot_id) is None:
        return ExpirePlan()
    floors = _plan(metadata, _Retention(1, 0), settings.allow_below_table_retention, _millis(now), drop_refs=False)
    if reason := floors.kept.get(snapshot_id):
        raise RetentionRefused(f"expireSnapshotId={snapshot_id} cannot be expired: it is {reason}")
    return ExpirePlan(snapshot_ids=(snapshot_id,))


def _plan(
    metadata: TableMetadata, policy: _Retention, below_table: bool, now_ms: int, *, drop_refs: bool = True
) -> ExpirePlan:
    properties = {} if below_table else metadata.properties
    dropped = tuple(_refs_past_age(metadata, now_ms)) if drop_refs else ()
    refs = {name: ref for name, ref in metadata.refs.items() if name not in dropped}
    kept: dict[int, str] = {}
    for name, ref in refs.items():
        kept.setdefault(ref.snapshot_id, f"the head of {ref.snapshot_ref_type} {name}")
    referenced = {ref.snapshot_id for ref in refs.values()}
    snapshots = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}  # pyiceberg searches them all
    for name, ref in refs.items():
        if ref.snapshot_ref_type is not SnapshotRefType.BRANCH:
            continue
        retention = _floor(policy, properties, ref)
        expiring = False
        for depth, snapshot in enumerate(_ancestors(snapshots, ref.snapshot_id)):
            referenced.add(snapshot.snapshot_id)
            young = snapshot.timestamp_ms >= now_ms - retention.max_age_ms
            expiring = expiring or not (depth < retention.min_snapshots or young)
            if not expiring:
                why = (
                    f"one of the last {retention.min_snapshots}" if depth < retention.min_snapshots else "young enough"
                )
                kept.setdefault(snapshot.snapshot_id, f"{why} on branch {name}")
    unreferenced = [s for s in metadata.snapshots if s.snapshot_id not in referenced]
    published = {_property(s, "published-wap-id") for s in metadata.snapshots}
    oldest = now_ms - _floor(policy, properties, None).max_age_ms
    for snapshot in unreferenced:
        staged = _property(snapshot, "wap.id")
        if staged and staged not in published:
            kept.setdefault(snapshot.snapshot_id, f"staged for publishing (wap.id={staged})")
        elif snapshot.timestamp_ms >= oldest:
            kept.setdefault(snapshot.snapshot_id, "young enough, though on no branch")
    expired = tuple(s.snapshot_id for s in metadata.snapshots if s.snapshot_id not in kept)
    return ExpirePlan(expired, kept, dropped)


def _floor(policy: _Retention, properties: Mapping[str, str], ref: SnapshotRef | None) -> _Retention:
    """The policy's retention, raised to what the ref, else the table, asks to keep."""
    min_snapshots = ref.min_snapshots_to_keep if ref else None
    max_age = ref.max_snapshot_age_ms if ref else None
    if min_snapshots is None:
        min_snapshots = _number(properties, MIN_SNAPSHOTS)
    if max_age is None:
        max_age = _number(properties, MAX_SNAPSHOT_AGE)
    return _Retention(max(policy.min_snapshots, min_snapshots or 0), max(policy.max_age_ms, max_age or 0))


def _refs_past_age(metadata: TableMetadata, now_ms: int) -> Iterator[str]:
    """Refs other than main that are older than the age set on them, or on the table for all refs."""
    default = _number(metadata.properties, MAX_REF_AGE)
    for name, ref in metadata.refs.items():
        limit = ref.max_ref_age_ms if ref.max_ref_age_ms is not None else default
        snapshot = metadata.snapshot_by_id(ref.snapshot_id)
        if name != MAIN_BRANCH and limit is not None and snapshot and now_ms - snapshot.timestamp_ms > limit:
            yield name


def _ancestors(snapshots: Mapping[int, Snapshot], snapshot_id: int) -> Iterator[Snapshot]:
    snapshot = snapshots.get(snapshot_id)
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = snapshots.get(parent) if parent is not None else None


def _number(properties: Mapping[str, str], name: str) -> int | None:
    text = properties.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise ConfigurationError(f"table property {name}={text!r} is not a whole number: correct or unset it") from None


def _property(snapshot: Snapshot, name: str) -> str | None:
    return snapshot.summary.additional_properties.get(name) if snapshot.summary else None


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
