"""Tables that the embedded engine must not write, whatever a plan says."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.table import Table

from airflow_provider_floe.errors import UnsupportedTableFeature
from airflow_provider_floe.iceberg.files import LiveFile

USE_SPARK = "use engine spark"

ROW_LINEAGE = (
    f"format version 3 needs row lineage carried along, which the local engine does not write yet: {USE_SPARK}"
)
DELETION_VECTORS = f"the local engine does not rewrite files under deletion vectors: {USE_SPARK}"
NOT_PARQUET = f"the local engine reads and writes Parquet only: {USE_SPARK}"
ENCRYPTED = f"the local engine has no access to encryption keys: {USE_SPARK}"

GC_DISABLED = "gc.enabled=false on the table forbids deleting its files: set it to true if no other catalog uses them"


def refuse_unsupported(table: Table, files: Sequence[LiveFile]) -> None:
    """Check what a rewrite of data files relies on, on the table as it is now.

    :raises UnsupportedTableFeature: naming the feature, an example, and the engine that can.
    """
    refuse_metadata(table)
    for file in files:
        if file.is_deletion_vector:
            raise UnsupportedTableFeature(f"{_name(table)} has deletion vectors ({file.path}): {DELETION_VECTORS}")
        if file.file_format.upper() != "PARQUET":
            raise UnsupportedTableFeature(f"{_name(table)} has {file.file_format} files ({file.path}): {NOT_PARQUET}")


def refuse_metadata(table: Table) -> None:
    """Check what writing manifests relies on.

    :raises UnsupportedTableFeature: for format version 3 and encrypted tables.
    """
    if table.metadata.format_version > 2:
        raise UnsupportedTableFeature(
            f"{_name(table)} has format version {table.metadata.format_version}: {ROW_LINEAGE}"
        )
    if any(name.startswith("encryption.") for name in table.metadata.properties):
        raise UnsupportedTableFeature(f"{_name(table)} is encrypted: {ENCRYPTED}")


def _name(table: Table) -> str:
    return ".".join(table.name())
