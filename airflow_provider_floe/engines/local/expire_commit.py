"""Commits the removal of snapshots, and gives back a branch or tag that another client put on one meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.exceptions import (
    BadRequestError,
    CommitFailedException,
    ForbiddenError,
    NoSuchTableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2, TableMetadataV3
from pyiceberg.table.refs import SnapshotRef
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemovePartitionSpecsUpdate,
    RemovePartitionStatisticsUpdate,
    RemoveSchemasUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    RemoveStatisticsUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from airflow_provider_floe.engines.base import OperationContext
from airflow_provider_floe.engines.local.commit import refusal
from airflow_provider_floe.engines.local.pyiceberg_commit import commit_table
from airflow_provider_floe.errors import CommitOutcomeUnknown, UnsafeOperation, UnsupportedTableFeature
from airflow_provider_floe.iceberg.listing import in_batches

log = logging.getLogger(__name__)

BASE_METADATA = "base_metadata"
"""Key of a commit detail: the metadata file on which snapshots were removed, until lost refs have been given back."""

_REMOVED_AT_ONCE = 200
_LOOKS = 3
_RESTORE_ATTEMPTS = 10


@dataclass(frozen=True)
class Removal:
    """What one expiry removes from the metadata."""

    snapshot_ids: tuple[int, ...] = ()
    refs: tuple[str, ...] = ()
    schema_ids: tuple[int, ...] = ()
    spec_ids: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing to remove."""
        return not (self.snapshot_ids or self.refs or self.schema_ids or self.spec_ids)

    def detail(self, table: Table) -> dict[str, Any]:
        """What the operation record keeps, so that whoever settles it can look whether it happened."""
        return {
            "table_uuid": str(table.metadata.table_uuid),
            "snapshot_ids": list(self.snapshot_ids),
            "refs": list(self.refs),
            "schema_ids": list(self.schema_ids),
            "spec_ids": list(self.spec_ids),
        }

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> Removal:
        """From a :meth:`detail`."""
        return cls(*(tuple(detail.get(name, ())) for name in ("snapshot_ids", "refs", "schema_ids", "spec_ids")))


def removal_happened(table: Table, detail: Mapping[str, Any]) -> bool:
    """Whether nothing of what a :class:`Removal` names is in the table any more."""
    metadata = table.metadata
    if str(metadata.table_uuid) != detail.get("table_uuid"):
        return False
    present: dict[str, set[Any]] = {
        "snapshot_ids": {snapshot.snapshot_id for snapshot in metadata.snapshots},
        "refs": set(metadata.refs),
        "schema_ids": {schema.schema_id for schema in metadata.schemas},
        "spec_ids": {spec.spec_id for spec in metadata.partition_specs},
    }
    named = {key: set(detail.get(key, ())) for key in present}
    return any(named.values()) and all(named[key].isdisjoint(present[key]) for key in present)


def commit_removal(context: OperationContext, table: Table, removal: Removal) -> bool:
    """Commit on exactly the branches and tags that ``table`` was loaded with.

    Recording that it is committed is left to the caller, after :func:`restore_lost_refs`: until then whoever settles
    the operation does that.

    :returns: False when the catalog refused because something else was committed first: nothing was changed.
    :raises CommitOutcomeUnknown: the catalog did not answer, and the snapshots are still there.
    :raises ConfigurationError: the catalog does not let this user commit; TableNotFound: the table vanished.
    """
    detail = removal.detail(table)
    context.committing({**detail, BASE_METADATA: table.metadata_location})
    try:
        commit_table(table, _requirements(table, removal), _updates(table.metadata, removal))
    except (NoSuchTableError, UnsupportedTableFeature) as error:
        raise refusal(table, error) from error
    except Exception as error:
        refused = isinstance(error, CommitFailedException | TooManyRequestsError)
        denied = isinstance(error, BadRequestError | UnauthorizedError | ForbiddenError)
        # a transport that repeats a request whose answer was lost gets a refusal for what has happened
        if not _landed(context, detail, looks=1 if refused or denied else _LOOKS):
            if denied:
                raise refusal(table, error) from error
            if refused:
                log.info("%s: the commit was refused: %s", ".".join(table.name()), error)
                return False
            raise CommitOutcomeUnknown(
                f"{'.'.join(table.name())}: the catalog did not say whether {len(removal.snapshot_ids)} snapshots were "
                f"expired ({type(error).__name__}: {error}), and they are in the table now; no file was deleted"
            ) from error
    return True


def give_back_refs(load: Callable[[], Table], detail: Mapping[str, Any]) -> None:
    """:func:`restore_lost_refs` for an operation that died after its commit and before it could do that itself.

    :param load: loads the table anew.
    :param detail: what :meth:`OperationContext.committing` or ``committed`` was given last.
    :raises UnsafeOperation: see there.
    """
    base_location = detail.get(BASE_METADATA)
    if base_location is None:  # done by then, or not our commit
        return
    after = load()
    try:
        metadata = FromInputFile.table_metadata(after.io.new_input(base_location))
    except FileNotFoundError:
        log.warning(
            "%s is gone: a branch or tag created while its snapshot expired cannot be given back", base_location
        )
        return
    base = Table(after.name(), metadata, base_location, after.io, after.catalog)
    restore_lost_refs(load, base, Removal.of(detail))


def restore_lost_refs(load: Callable[[], Table], base: Table, removal: Removal) -> Table:
    """Give back branches and tags that other clients put on a removed snapshot while it was being removed.

    A catalog checks only the refs that it is told of, and drops one that it was not told of together with its
    snapshot. The last metadata file before our commit still has it.

    :param load: loads the table anew.
    :returns: the table as it is then, loaded anew.
    :raises UnsafeOperation: when the ref cannot be given back, or it cannot be told whether there was one; no file
        was deleted then.
    """
    name = ".".join(base.name())
    after = load()
    lost = lost_refs(base, after, removal)
    for attempt in range(_RESTORE_ATTEMPTS):
        missing = {ref: lost[ref] for ref in lost if ref not in after.metadata.refs}
        if not missing:
            return after
        try:
            commit_table(after, *_restoration(base, after, missing))
            log.warning("%s: gave back %s, created on snapshots while those expired", name, sorted(missing))
        except Exception as error:
            log.warning("%s: giving back %s failed, attempt %s: %s", name, sorted(missing), attempt + 1, error)
            time.sleep(0.02 * 2**attempt)
        after = load()
    raise UnsafeOperation(
        f"{name}: {', '.join(sorted(lost))} were created on snapshots while those expired, and could not be given "
        f"back. No file was deleted: {base.metadata_location} still describes the snapshots"
    )


def lost_refs(base: Table, after: Table, removal: Removal) -> dict[str, SnapshotRef]:
    """Branches and tags that were put on a removed snapshot after ``base`` and are gone in ``after``.

    :raises UnsafeOperation: when a metadata file written between the two cannot be read.
    """
    gone = set(removal.snapshot_ids)
    last: TableMetadata | None = None
    for metadata in _between(base, after) if gone else ():
        if any(snapshot.snapshot_id in gone for snapshot in metadata.snapshots):
            last = metadata
    if last is None:
        versions = [entry.metadata_file for entry in after.metadata.metadata_log]
        same = after.metadata.table_uuid == base.metadata.table_uuid
        if gone and same and versions and base.metadata_location not in versions:
            raise UnsafeOperation(
                f"{'.'.join(base.name())}: {len(versions)} versions of metadata are kept, too few to tell whether a "
                "branch or tag was created while snapshots expired, so no file was deleted. "
                f"{base.metadata_location} still describes the snapshots; raise "
                "the table's write.metadata.previous-versions-max"
            )
        return {}
    return {
        name: ref
        for name, ref in last.refs.items()
        if ref.snapshot_id in gone and name not in base.metadata.refs and name not in after.metadata.refs
    }


def _between(base: Table, after: Table) -> Iterator[TableMetadata]:
    """The metadata versions after the one we read, the current one left out."""
    versions = [entry.metadata_file for entry in after.metadata.metadata_log]
    if base.metadata_location in versions:
        versions = versions[versions.index(base.metadata_location) + 1 :]
    for version in versions:
        try:
            yield FromInputFile.table_metadata(after.io.new_input(version))
        except Exception as error:
            raise UnsafeOperation(
                f"{version}, a metadata file written while snapshots expired, cannot be read ({error}): "
                "a branch or tag created meanwhile may be lost, so no file was deleted"
            ) from error


def _requirements(table: Table, removal: Removal) -> tuple[TableRequirement, ...]:
    metadata = table.metadata
    found: list[TableRequirement] = [AssertTableUUID(uuid=metadata.table_uuid)]
    found += [AssertRefSnapshotId(ref=name, snapshot_id=ref.snapshot_id) for name, ref in metadata.refs.items()]
    if removal.schema_ids:
        found.append(AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id))
    if removal.spec_ids:
        found.append(AssertDefaultSpecId(default_spec_id=metadata.default_spec_id))
    return tuple(found)


def _updates(metadata: TableMetadata, removal: Removal) -> tuple[TableUpdate, ...]:
    found: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=name) for name in removal.refs]
    gone = set(removal.snapshot_ids)
    found += [
        RemoveStatisticsUpdate(snapshot_id=i) for i in sorted({s.snapshot_id for s in metadata.statistics} & gone)
    ]
    found += [
        RemovePartitionStatisticsUpdate(snapshot_id=i)
        for i in sorted({s.snapshot_id for s in metadata.partition_statistics} & gone)
    ]
    # pyiceberg looks for each id among all snapshots that are left, and they stand in the same order: in small updates
    # what it looks for is among the first
    found += [RemoveSnapshotsUpdate(snapshot_ids=some) for some in in_batches(removal.snapshot_ids, _REMOVED_AT_ONCE)]
    if removal.spec_ids:
        found.append(RemovePartitionSpecsUpdate(spec_ids=list(removal.spec_ids)))
    if removal.schema_ids:
        found.append(RemoveSchemasUpdate(schema_ids=list(removal.schema_ids)))
    return tuple(found)


def _restoration(
    base: Table, after: Table, refs: Mapping[str, SnapshotRef]
) -> tuple[tuple[TableRequirement, ...], tuple[TableUpdate, ...]]:
    metadata = after.metadata
    requirements: list[TableRequirement] = [AssertTableUUID(uuid=metadata.table_uuid)]
    requirements += [AssertRefSnapshotId(ref=name, snapshot_id=None) for name in refs if name not in metadata.refs]
    updates: list[TableUpdate] = []
    ids = sorted({ref.snapshot_id for ref in refs.values()})
    for offset, snapshot_id in enumerate(i for i in ids if metadata.snapshot_by_id(i) is None):
        snapshot = base.metadata.snapshot_by_id(snapshot_id)
        if snapshot is None:
            raise UnsafeOperation(f"snapshot {snapshot_id} is not in {base.metadata_location}")
        updates.append(AddSnapshotUpdate(snapshot=_readmitted(snapshot, metadata, offset)))
    updates += [
        SetSnapshotRefUpdate(
            ref_name=name,
            type=ref.snapshot_ref_type,
            snapshot_id=ref.snapshot_id,
            max_ref_age_ms=ref.max_ref_age_ms,
            max_snapshot_age_ms=ref.max_snapshot_age_ms,
            min_snapshots_to_keep=ref.min_snapshots_to_keep,
        )
        for name, ref in refs.items()
    ]
    return tuple(requirements), tuple(updates)


def _readmitted(snapshot: Snapshot, metadata: TableMetadata, offset: int) -> Snapshot:
    """The snapshot as a catalog accepts it again.

    Catalogs set the table's last sequence number and time to those of the snapshot added. With its old ones they
    would run backwards, and the next commit would reuse a sequence number. Files are not touched by that: their
    sequence numbers stand in the manifests.
    """
    changes: dict[str, Any] = {"parent_snapshot_id": None, "timestamp_ms": max(_now_ms(), metadata.last_updated_ms)}
    if isinstance(metadata, TableMetadataV2 | TableMetadataV3):
        changes["sequence_number"] = metadata.last_sequence_number + 1 + offset
    if isinstance(metadata, TableMetadataV3):
        changes |= {"first_row_id": metadata.next_row_id, "added_rows": 0}
    return snapshot.model_copy(update=changes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _landed(context: OperationContext, detail: Mapping[str, Any], looks: int) -> bool:
    for turn in range(looks):
        try:
            if removal_happened(context.load_table(), detail):
                return True
        except Exception as error:
            log.warning("looking whether snapshots are expired failed: %s", error)
        if turn < looks - 1:
            time.sleep(0.1 * 2**turn)
    return False
