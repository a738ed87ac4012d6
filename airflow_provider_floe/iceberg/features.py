"""What a table uses of the Iceberg format, as far as an engine may not be able to handle it.

Imports nothing of pyiceberg when it runs: the names are needed wherever plans are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

    from airflow_provider_floe.iceberg.aggregates import FileAggregate


class TableFeature(StrEnum):
    """Features of a table that an engine may not be able to handle."""

    FORMAT_V1 = "format-v1"
    FORMAT_V3 = "format-v3"
    POSITION_DELETES = "position-deletes"
    EQUALITY_DELETES = "equality-deletes"
    DELETION_VECTORS = "deletion-vectors"
    BRANCHES = "branches"
    TAGS = "tags"
    SPEC_EVOLUTION = "spec-evolution"
    NAME_MAPPING = "name-mapping"
    NESTED_TYPES = "nested-types"
    UNKNOWN_OR_GEO_TYPES = "unknown-or-geo-types"
    NON_PARQUET_FILES = "non-parquet-files"
    ENCRYPTED = "encrypted"
    GC_DISABLED = "gc-disabled"


def is_encrypted(table: Table) -> bool:
    """Whether the table asks for encryption or has keys for it."""
    return "encryption.key-id" in table.properties or bool(getattr(table.metadata, "encryption_keys", None))


def unknown_or_geo_columns(schema: Schema) -> dict[str, str]:
    """Type by name of the columns, nested ones included, of types that few readers and writers know."""
    kinds = {schema.find_column_name(one): str(schema.find_type(one)) for one in schema.field_ids}
    return {str(name): kind for name, kind in kinds.items() if kind.partition("(")[0] in _UNKNOWN_OR_GEO}


_UNKNOWN_OR_GEO = ("unknown", "geometry", "geography")


def table_features(
    table: Table, manifests: Sequence[ManifestFile], files: FileAggregate | None = None
) -> tuple[str, ...]:
    """The features in use at the current snapshot, as values of :class:`TableFeature`, in its order.

    :param manifests: those of the current snapshot.
    :param files: what all manifests, or a sample of them, say of the files. Without it the kinds of deletes are told
        from the snapshot's summary, and are presumed present where the summary does not tell.
    """
    found = set(_metadata_features(table, manifests)) | set(_delete_features(table, manifests, files))
    formats = {table.properties.get("write.format.default", "parquet").upper()} if files is None else files.data_formats
    if formats - {"PARQUET"}:
        found.add(TableFeature.NON_PARQUET_FILES)
    return tuple(feature.value for feature in TableFeature if feature in found)


def _metadata_features(table: Table, manifests: Sequence[ManifestFile]) -> Iterator[TableFeature]:
    metadata, properties = table.metadata, table.properties
    if metadata.format_version == 1:
        yield TableFeature.FORMAT_V1
    if metadata.format_version >= 3:
        yield TableFeature.FORMAT_V3
    refs = metadata.refs
    if any(ref.snapshot_ref_type == "branch" and name != "main" for name, ref in refs.items()):
        yield TableFeature.BRANCHES
    if any(ref.snapshot_ref_type == "tag" for ref in refs.values()):
        yield TableFeature.TAGS
    if any(manifest.partition_spec_id != metadata.default_spec_id for manifest in manifests if _is_live(manifest)):
        yield TableFeature.SPEC_EVOLUTION
    if "schema.name-mapping.default" in properties:
        yield TableFeature.NAME_MAPPING
    if any(not field.field_type.is_primitive for field in table.schema().fields):
        yield TableFeature.NESTED_TYPES
    if unknown_or_geo_columns(table.schema()):
        yield TableFeature.UNKNOWN_OR_GEO_TYPES
    if is_encrypted(table):
        yield TableFeature.ENCRYPTED
    if properties.get("gc.enabled", "true").strip().lower() == "false":
        yield TableFeature.GC_DISABLED


def _delete_features(
    table: Table, manifests: Sequence[ManifestFile], files: FileAggregate | None
) -> Iterator[TableFeature]:
    if not any(manifest.content == 1 and _is_live(manifest) for manifest in manifests):
        return
    summary = snapshot.summary if (snapshot := table.metadata.current_snapshot()) else None
    told = summary.additional_properties if summary else {}
    may_have_positions = told.get("total-position-deletes") != "0"
    if files.position_deletes.files if files else may_have_positions:
        yield TableFeature.POSITION_DELETES
    if files.equality_deletes.files if files else told.get("total-equality-deletes") != "0":
        yield TableFeature.EQUALITY_DELETES
    if files.deletion_vectors.files if files else may_have_positions and table.metadata.format_version >= 3:
        yield TableFeature.DELETION_VECTORS


def _is_live(manifest: ManifestFile) -> bool:
    """Whether it may hold a live file; format version 1 need not count them."""
    return manifest.added_files_count != 0 or manifest.existing_files_count != 0
