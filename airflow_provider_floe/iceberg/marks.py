"""Marks of rewrites on snapshots, by which planning knows what an engine wrote that does not name its files by them."""

from __future__ import annotations

from pyiceberg.table.metadata import TableMetadata

MARK_PROPERTY = "floe.rewrite-mark"
"""Snapshot summary property: the digest of the settings by which the snapshot's files were ordered."""


def marked_snapshots(metadata: TableMetadata, mark: str) -> frozenset[int]:
    """The snapshots that bear a mark, as long as they are not expired."""
    return frozenset(
        snapshot.snapshot_id
        for snapshot in metadata.snapshots
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(MARK_PROPERTY) == mark
    )
