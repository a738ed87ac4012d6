"""Which snapshots Spark made, and whether the table's rows are still the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation as SnapshotOperation
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY
from airflow_provider_floe.engines.changes import Change
from airflow_provider_floe.engines.local.verify import verify_group
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests

ROW_COUNT = "count(*)"
ROW_LINEAGE = "count(*), bit_xor(xxhash64(_row_id, _last_updated_sequence_number))"
"""What Spark compares before and after: rows, and for format version 3 which row is which."""


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
