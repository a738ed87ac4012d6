"""Tables that the embedded engine must not write, whatever a plan says."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.table import Table
from pyiceberg.transforms import UnknownTransform

from airflow_provider_floe.engines.local.pyiceberg_adapter import LINEAGE
from airflow_provider_floe.errors import UnsupportedTableFeature
from airflow_provider_floe.iceberg.features import is_encrypted, unknown_or_geo_columns
from airflow_provider_floe.iceberg.files import LiveFile

USE_SPARK = "use engine spark"

NEWEST_FORMAT = 3
LINEAGE_NAMES = frozenset(field.name for field in LINEAGE)

NOT_PARQUET = f"the local engine reads and writes Parquet only: {USE_SPARK}"
UNKNOWN_OR_GEO = f"the local engine does not carry values of type unknown, geometry or geography over: {USE_SPARK}"
ENCRYPTED = f"the local engine has no access to encryption keys: {USE_SPARK}"

GC_DISABLED = "gc.enabled=false on the table forbids deleting its files: set it to true if no other catalog uses them"


def refuse_unsupported(table: Table, files: Sequence[LiveFile]) -> None:
    """Check what a rewrite of data files relies on, on the table as it is now.

    :raises UnsupportedTableFeature: naming the feature, an example, and the engine that can.
    """
    refuse_metadata(table)
    refuse_rows(table)
    refuse_other_formats(table, files)


def refuse_other_formats(table: Table, files: Sequence[LiveFile]) -> None:
    """Check that files are Parquet, or deletion vectors.

    :raises UnsupportedTableFeature: naming one that is not.
    """
    for file in files:
        if file.file_format.upper() != "PARQUET" and not file.is_deletion_vector:
            raise UnsupportedTableFeature(f"{_name(table)} has {file.file_format} files ({file.path}): {NOT_PARQUET}")


def refuse_metadata(table: Table) -> None:
    """Check what writing manifests relies on.

    :raises UnsupportedTableFeature: for encrypted tables, newer format versions, and what pyiceberg does not know.
    """
    metadata = table.metadata
    if is_encrypted(table) or any(name.startswith("encryption.") for name in metadata.properties):
        raise UnsupportedTableFeature(f"{_name(table)} is encrypted: {ENCRYPTED}")
    if metadata.format_version > NEWEST_FORMAT:
        raise UnsupportedTableFeature(
            f"{_name(table)} has format version {metadata.format_version}; the local engine knows up to "
            f"{NEWEST_FORMAT}: {USE_SPARK}"
        )
    for spec in metadata.specs().values():
        for field in spec.fields:
            if isinstance(field.transform, UnknownTransform):
                raise UnsupportedTableFeature(
                    f"{_name(table)} has partition field {field.name} with transform {field.transform}, which the "
                    f"local engine does not know: {USE_SPARK}"
                )


def refuse_rows(table: Table) -> None:
    """Check that rows can be read and written: what a rewrite of data files relies on beside the files.

    :raises UnsupportedTableFeature: for types that cannot be carried over exactly, and columns named like ours.
    """
    schema = table.metadata.schema()
    for name, kind in unknown_or_geo_columns(schema).items():
        raise UnsupportedTableFeature(f"{_name(table)} has column {name} of type {kind}: {UNKNOWN_OR_GEO}")
    for field in schema.fields:
        if field.name in LINEAGE_NAMES and table.metadata.format_version >= 3:
            raise UnsupportedTableFeature(
                f"{_name(table)} has a column named {field.name}, under which row lineage is kept: {USE_SPARK}"
            )


def _name(table: Table) -> str:
    return ".".join(table.name())
