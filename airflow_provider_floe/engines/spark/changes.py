"""What snapshots changed, read from the table's metadata without Spark, and whether its rows are still the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation as SnapshotOperation
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY
from airflow_provider_floe.engines.local.verify import Expectation, verify_group
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests

ROW_COUNT = "count(*)"
ROW_LINEAGE = "count(*), bit_xor(xxhash64(_row_id, _last_updated_sequence_number))"
"""What Spark compares before and after: rows, and for format version 3 which row is which."""


@dataclass
class Change:
    """Files that one snapshot removed and added.

    :ivar expected: what the removed data files held.
    """

    expected: Expectation = field(default_factory=Expectation)
    bytes_removed: int = 0
    added: list[DataFile] = field(default_factory=list)
    delete_files_removed: int = 0
    delete_files_added: int = 0
    delete_bytes_removed: int = 0
    delete_bytes_added: int = 0

    @property
    def bytes_added(self) -> int:
        """Size of the added data files."""
        return sum(file.file_size_in_bytes for file in self.added)

    @property
    def rows_added(self) -> int:
        """Rows in the added data files."""
        return sum(file.record_count for file in self.added)


def own_snapshots(known_ids: Collection[int], after: Table, operation_id: str | None) -> list[Snapshot]:
    """The snapshots of kind replace that bear the operation id, oldest first.

    :param known_ids: of the snapshots that were there before.
    :param operation_id: None takes all, where a route cannot have Spark write the id.
    """
    known = set(known_ids)
    return [
        snapshot
        for snapshot in after.metadata.snapshots
        if snapshot.snapshot_id not in known
        and snapshot.summary is not None
        and snapshot.summary.operation is SnapshotOperation.REPLACE
        and operation_id in (None, snapshot.summary.additional_properties.get(OPERATION_ID_PROPERTY))
    ]


def change_of(table: Table, snapshot: Snapshot) -> Change:
    """What a snapshot changed, by the manifests that it added."""
    change = Change()
    for manifest in snapshot_manifests(table, snapshot.snapshot_id):
        if manifest.added_snapshot_id != snapshot.snapshot_id:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            file, is_data = entry.data_file, entry.data_file.content == DataFileContent.DATA
            if entry.snapshot_id not in (None, snapshot.snapshot_id):
                continue
            if entry.status == ManifestEntryStatus.DELETED and is_data:
                change.expected.add(file, table.schema())
                change.bytes_removed += file.file_size_in_bytes
            elif entry.status == ManifestEntryStatus.DELETED:
                change.delete_files_removed += 1
                change.delete_bytes_removed += file.file_size_in_bytes
            elif entry.status == ManifestEntryStatus.ADDED and is_data:
                change.added.append(file)
            elif entry.status == ManifestEntryStatus.ADDED:
                change.delete_files_added += 1
                change.delete_bytes_added += file.file_size_in_bytes
    return change


def rows_to_count(table: Table) -> str | None:
    """What Spark is to compare before and after; None where the manifests tell it all."""
    if table.metadata.format_version >= 3:
        return ROW_LINEAGE
    deletes = any(manifest.content == ManifestContent.DELETES for manifest in snapshot_manifests(table))
    return ROW_COUNT if deletes else None


def verify_rows(
    table: Table, snapshot: Snapshot, change: Change, spec_id: int, counts: Sequence[Sequence[Any]] | None
) -> None:
    """Hold a rewrite against what it replaced (promise 15), once it is committed.

    :param counts: Spark's own aggregates of the parent and of the snapshot, where there are deletes or row lineage.
    :raises VerificationFailed: saying which snapshot to go back to.
    """
    removed = change.expected.rows - change.rows_added
    back = (
        f"snapshot {snapshot.snapshot_id} of {'.'.join(table.name())} does not hold what its parent holds; roll back "
        f"with CALL system.rollback_to_snapshot(..., {snapshot.parent_snapshot_id}) before anything expires it"
    )
    if counts is not None and list(counts[0]) != list(counts[1]):
        raise VerificationFailed(f"{back}: Spark counts {counts[1]} in it and {counts[0]} in its parent")
    if removed < 0 or (removed and counts is None):
        raise VerificationFailed(
            f"{back}: {change.rows_added:,} rows were written in place of {change.expected.rows:,}"
        )
    if change.added and change.expected.files:
        try:
            verify_group(table.io, table.schema(), change.expected, removed, change.added, spec_id)
        except VerificationFailed as error:
            raise VerificationFailed(f"{back}: {str(error).removesuffix(': nothing was committed')}") from error


def verify_same_files(table: Table, snapshot: Snapshot) -> None:
    """Hold a rewrite of manifests against its parent: every live file once, with the sequence number it had.

    :raises VerificationFailed: with an example.
    """
    ours, parents = (_live(table, one) for one in (snapshot.snapshot_id, snapshot.parent_snapshot_id))
    if ours != parents:
        lost, found = parents.keys() - ours.keys(), ours.keys() - parents.keys()
        example = next(iter(lost or found), None) or next(path for path in ours if ours[path] != parents[path])
        raise VerificationFailed(
            f"snapshot {snapshot.snapshot_id} of {'.'.join(table.name())} lost {len(lost)} files and has "
            f"{len(found)} that its parent {snapshot.parent_snapshot_id} had not, for example {example}: roll back to "
            "the parent before anything expires it"
        )


def _live(table: Table, snapshot_id: int | None) -> Mapping[str, tuple[Any, ...]]:
    return {
        file.path: (file.content, file.sequence_number, file.spec_id, file.record_count, file.referenced_data_file)
        for file in live_files(table.io, snapshot_manifests(table, snapshot_id))
    }
