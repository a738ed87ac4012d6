"""Schemas and partition specs that nothing uses any more, and schemas that only seem to be such."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.reachability import read_manifest_lists


@dataclass(frozen=True)
class UnusedMetadata:
    """What neither a snapshot nor its files name.

    :ivar schema_ids: of schemas that can go.
    :ivar spec_ids: of partition specs that can go.
    :ivar needed_schema_ids: of schemas that alone tell the type of a column that the table dropped, but that equality
        deletes or partition specs still speak of. Spark and Trino, when they clean metadata, remove them as well, and
        fail to read the table ever after.
    """

    schema_ids: tuple[int, ...]
    spec_ids: tuple[int, ...]
    needed_schema_ids: tuple[int, ...]

    @property
    def cleanable(self) -> bool:
        """Whether there is something to clean for an engine that knows only whether a snapshot names a schema."""
        return not self.needed_schema_ids and bool(self.schema_ids or self.spec_ids)

    def reason_to_keep(self, engine: str) -> str | None:
        """Why such an engine must not clean this table; None: it may."""
        if not self.needed_schema_ids:
            return None
        schemas = ", ".join(map(str, self.needed_schema_ids))
        return (
            f"old schemas and specs stay: {engine} would also remove schema {schemas}, which holds columns that were "
            "dropped, but that equality deletes or partition specs still speak of; rewrite the data files with their "
            "deletes first, or use engine local, which removes the others only"
        )


def unused_metadata(table: Table, expired: Collection[int]) -> UnusedMetadata:
    """What can go with the expired snapshots.

    :param expired: ids of the snapshots that are not kept.
    :raises TableUnreadable: when a manifest list or manifest cannot be read.
    """
    metadata = table.metadata
    kept = [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id not in expired]
    schemas = {schema.schema_id for schema in metadata.schemas} - {metadata.current_schema_id}
    schemas -= {snapshot.schema_id for snapshot in kept if snapshot.schema_id is not None}
    if any(snapshot.schema_id is None for snapshot in kept):
        schemas = set()
    specs = {spec.spec_id for spec in metadata.partition_specs} - {metadata.default_spec_id}
    if specs:
        for found in read_manifest_lists(table, kept):
            specs -= {manifest.spec_id for manifest in found.manifests}
    needed = _schemas_of_dropped_columns(table, kept, schemas, specs)
    return UnusedMetadata(tuple(sorted(schemas - needed)), tuple(sorted(specs)), tuple(sorted(needed)))


def _schemas_of_dropped_columns(
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
