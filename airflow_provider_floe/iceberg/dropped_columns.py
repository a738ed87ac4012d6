"""Schemas that are kept for columns which the table dropped, but its deletes or partition specs still speak of."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests


def schemas_of_dropped_columns(
    table: Table, snapshots: Iterable[Snapshot], unused: Collection[int], unused_specs: Collection[int]
) -> set[int]:
    """Of schemas that no snapshot names, those that alone tell the type of a column that files still depend on.

    Readers look in all schemas for a column that an equality delete compares, and fail where none has it; manifests of
    an old spec are written with the types of the columns that it partitions by.

    :param snapshots: those whose files are kept.
    :param unused: ids of the schemas.
    :param unused_specs: ids of the partition specs of which no file is kept.
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
    specs = [spec for spec in table.metadata.partition_specs if spec.spec_id not in unused_specs]
    missing |= {field.source_id for spec in specs for field in spec.fields}
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
