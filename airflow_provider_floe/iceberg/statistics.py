"""Table statistics: which columns are to have some, and whether those that are there still tell of the table."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation as SnapshotOperation
from pyiceberg.table.snapshots import Snapshot, ancestors_of
from pyiceberg.table.statistics import StatisticsFile

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.features import unknown_or_geo_columns
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import ComputeTableStats
from airflow_provider_floe.text import count_text, number_text

THETA = "apache-datasketches-theta-v1"
"""Type of the blobs that hold a column's number of distinct values."""

_CHANGES = ("added-records", "deleted-records", "added-position-deletes", "added-equality-deletes")


def statistics_columns(metadata: TableMetadata, settings: ComputeTableStats) -> dict[int, str]:
    """The columns that are to have statistics, by field id: those of the settings, else all of a primitive type.

    One that was added or renamed since the last commit is left out until the next: the snapshot does not know it.

    :raises ConfigurationError: naming columns of the settings that the table has not, or that hold other columns.
    """
    schema, snapshot = metadata.schema(), metadata.current_snapshot()
    schemas = {one.schema_id: one for one in metadata.schemas}
    written = schemas.get(snapshot.schema_id, schema) if snapshot and snapshot.schema_id is not None else schema
    known = {(field.field_id, field.name) for field in written.fields}
    strange = unknown_or_geo_columns(schema)
    able = {
        field.name: field.field_id
        for field in schema.fields
        if field.field_type.is_primitive and field.name not in strange
    }
    if wrong := [name for name in settings.columns if name not in able]:
        raise ConfigurationError(
            f"computeTableStats.columns names {', '.join(wrong)}: the table's top-level columns of primitive types are "
            f"{', '.join(able) or 'none'}"
        )
    return {able[name]: name for name in settings.columns or able if (able[name], name) in known}


def sketched_fields(entry: StatisticsFile) -> set[int]:
    """Ids of the columns of which a statistics file holds the distinct values as of its own snapshot."""
    return {
        blob.fields[0]
        for blob in entry.blob_metadata
        if blob.type == THETA and len(blob.fields) == 1 and blob.snapshot_id == entry.snapshot_id
    }


def statistics_work(metadata: TableMetadata, settings: ComputeTableStats) -> Work:
    """Whether statistics are missing, or so many rows changed since that they tell of another table.

    Known from the metadata alone. Snapshots that only rewrite files change no rows.
    """
    try:
        columns = statistics_columns(metadata, settings)
    except ConfigurationError as error:
        return Work(False, str(error), refusal=str(error))
    current = metadata.current_snapshot()
    if current is None or _number(current, "total-records") == 0:
        return Work(False, "the table has no rows")
    if not columns:
        return Work(False, "the current snapshot has no column of a primitive type")
    found, summary = _judge(metadata, current, columns, settings.min_changed_share)
    if not found:
        return Work(False, summary)
    return Work(
        True,
        summary,
        files_in=_number(current, "total-data-files") or 0,
        files_out=1,
        bytes_in=_number(current, "total-files-size") or 0,
    )


def _judge(
    metadata: TableMetadata, current: Snapshot, columns: Mapping[int, str], threshold: float
) -> tuple[bool, str]:
    entries = {entry.snapshot_id: entry for entry in metadata.statistics if sketched_fields(entry)}
    if not entries:
        return True, f"the table has no statistics; {count_text(len(columns), 'column')} to compute them of"
    changed: int | None = 0
    for snapshot in ancestors_of(current, metadata):
        entry = entries.get(snapshot.snapshot_id)
        if entry is not None:
            break
        rows = _changed_rows(snapshot)
        changed = None if changed is None or rows is None else changed + rows
    else:
        return True, "the statistics that the table has are of snapshots that are not in its current history"
    if missing := [name for field, name in columns.items() if field not in sketched_fields(entry)]:
        return True, f"the statistics of snapshot {entry.snapshot_id} lack {', '.join(missing)}"
    if entry.snapshot_id == current.snapshot_id:
        return False, f"the current snapshot has statistics of {count_text(len(columns), 'column')}"
    total = _number(snapshot, "total-records")
    if changed is None or total is None:
        return True, f"how many rows changed since the statistics of snapshot {entry.snapshot_id} is not known"
    share = changed / max(total, 1)
    return share >= threshold, (
        f"{changed:,} rows were written or deleted since the statistics of snapshot {entry.snapshot_id}, which had "
        f"{total:,}: {number_text(share * 100)} %, threshold {number_text(threshold * 100)} %"
    )


def statistics_detail(metadata: TableMetadata, columns: Collection[int]) -> dict[str, Any]:
    """What has to be known of the table before its statistics are computed, to find them afterwards: JSON."""
    snapshot_id = metadata.current_snapshot_id
    before = [entry.statistics_path for entry in metadata.statistics if entry.snapshot_id == snapshot_id]
    return {
        "table_uuid": str(metadata.table_uuid),
        "snapshot_before": snapshot_id,
        "statistics_before": before[0] if before else None,
        "fields": sorted(columns),
    }


def written_statistics(metadata: TableMetadata, detail: Mapping[str, Any]) -> StatisticsFile | None:
    """The statistics of all columns that were written since, of the snapshot of then or one that came after it.

    Nothing in the metadata says who wrote them. Those of another writer are as good: what was to be there is there.

    :param detail: see :func:`statistics_detail`.
    """
    if str(metadata.table_uuid) != detail["table_uuid"]:
        return None
    current = metadata.current_snapshot()
    entries = {entry.snapshot_id: entry for entry in metadata.statistics}
    for snapshot in ancestors_of(current, metadata) if current else ():
        entry = entries.get(snapshot.snapshot_id)
        if (
            entry is not None
            and entry.statistics_path != detail["statistics_before"]
            and set(detail["fields"]) <= sketched_fields(entry)
        ):
            return entry
        if snapshot.snapshot_id == detail["snapshot_before"]:
            break
    return None


def _changed_rows(snapshot: Snapshot) -> int | None:
    if snapshot.summary is None:
        return None
    if snapshot.summary.operation is SnapshotOperation.REPLACE:
        return 0
    return sum(_number(snapshot, key) or 0 for key in _CHANGES)


def _number(snapshot: Snapshot, key: str) -> int | None:
    text = snapshot.summary.additional_properties.get(key) if snapshot.summary else None
    return int(text) if text is not None and text.isdigit() else None
