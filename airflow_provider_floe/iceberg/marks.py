"""Marks of rewrites on snapshots, by which planning knows what an engine wrote that does not name its files by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyiceberg.table.metadata import TableMetadata

MARK_PROPERTY = "floe.rewrite-mark"
"""Snapshot summary property: the digest of the settings by which the snapshot's files were ordered."""


def marked_snapshots(metadata: TableMetadata, mark: str) -> frozenset[int]:
    """The snapshots that bear a mark, as long as they are not expired."""
    return _snapshots(metadata, lambda told: told.get(MARK_PROPERTY) == mark)


def trino_manifest_rewrites(metadata: TableMetadata) -> frozenset[int]:
    """The snapshots that Trino's ``optimize_manifests`` made, which always clusters by the partition fields.

    Newer versions count manifests in the snapshots of other statements too; those change data files.
    """
    return _snapshots(
        metadata,
        lambda told: (
            told.get("engine-name") == "trino"
            and "manifests-created" in told
            and not told.keys() & {"added-data-files", "deleted-data-files"}
        ),
    )


def _snapshots(metadata: TableMetadata, wanted: Callable[[Mapping[str, str]], bool]) -> frozenset[int]:
    return frozenset(
        snapshot.snapshot_id
        for snapshot in metadata.snapshots
        if snapshot.summary is not None and wanted(snapshot.summary.additional_properties)
    )
