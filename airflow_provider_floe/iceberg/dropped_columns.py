"""Schemas that are kept for the sake of columns which the table dropped, but equality deletes still compare."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests


def schemas_of_deletes(table: Table, snapshots: Iterable[Snapshot], unused: Collection[int]) -> set[int]:
    """Of schemas that no snapshot names, those without which equality deletes of the snapshots could not be applied.

    A reader looks for the type of a compared column in all schemas, and fails where none has it.

    :param unused: ids of the schemas.
    """
    if not unused:
        return set()
    manifests = {
        manifest.manifest_path: manifest
        for snapshot in snapshots
        for manifest in snapshot_manifests(table, snapshot.snapshot_id)
        if manifest.content == ManifestContent.DELETES
    }
    missing = {one for file in live_files(table.io, list(manifests.values())) for one in file.equality_ids or ()}
    newest_first = sorted(table.metadata.schemas, key=lambda schema: schema.schema_id, reverse=True)
    for schema in newest_first:
        if schema.schema_id not in unused:
            missing -= schema.field_ids
    needed = set()
    for schema in newest_first:
        if schema.schema_id in unused and missing & schema.field_ids:
            needed.add(schema.schema_id)
            missing -= schema.field_ids
    return needed
