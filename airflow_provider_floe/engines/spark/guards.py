"""What Spark must not be asked to do, whatever a plan says."""

from __future__ import annotations

from pyiceberg.table import Table

from airflow_provider_floe.errors import RetentionRefused, UnsupportedTableFeature
from airflow_provider_floe.iceberg.features import is_encrypted
from airflow_provider_floe.iceberg.retention import undeletable_reason

ENCRYPTED = "what Spark did to an encrypted table cannot be checked afterwards, since its manifests cannot be read"
ROW_IDS = (
    "Spark's rewrite_manifests gives the rows of a table of format version 3 other row ids (Iceberg 1.10 and 1.11): "
    "use engine local"
)
GC_DISABLED = "gc.enabled=false on the table forbids deleting its files: set it to true if no other catalog uses them"


def refuse_unsafe(table: Table, *, deletes_files: bool, rewrites_manifests: bool = False) -> None:
    """Look at the table as it is now.

    :raises UnsupportedTableFeature: for encrypted tables, and where rows would lose their ids.
    :raises RetentionRefused: when files are to be deleted and the table forbids it.
    """
    name = ".".join(table.name())
    if deletes_files and (reason := undeletable_reason(table)):
        raise RetentionRefused(f"{name}: {reason}")
    if is_encrypted(table):
        raise UnsupportedTableFeature(f"{name}: {ENCRYPTED}")
    if rewrites_manifests and table.metadata.format_version >= 3:
        raise UnsupportedTableFeature(f"{name}: {ROW_IDS}")
