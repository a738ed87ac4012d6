"""What an engine elsewhere did that was to compute statistics, by the table's metadata and storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.storage_check import gone
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.statistics import written_statistics
from airflow_provider_floe.text import bytes_text, count_text


def statistics_result(table: Table, detail: Mapping[str, Any], engine: str) -> OperationResult:
    """Find the statistics that were to be written, and count them; no snapshot is made.

    :param detail: see :func:`~airflow_provider_floe.iceberg.statistics.statistics_detail`.
    :param engine: who was to write them, for people.
    :raises VerificationFailed: they are not in the metadata, lack columns, or their file is not in storage.
    """
    name = ".".join(table.name())
    entry = written_statistics(table.metadata, detail)
    if entry is None:
        raise VerificationFailed(
            f"{engine} said that it computed the statistics of {name}, but its metadata holds none of all "
            f"{count_text(len(detail['fields']), 'column')} (field ids {', '.join(map(str, detail['fields']))}) that "
            f"were not there before, for snapshot {detail['snapshot_before']} or one after it. No row was touched"
        )
    if gone(table, [entry.statistics_path]):
        raise VerificationFailed(
            f"{name}: the statistics of snapshot {entry.snapshot_id} are not in storage: {entry.statistics_path}. No "
            "row was touched; engines read the table without statistics"
        )
    fields = len(detail["fields"])
    return OperationResult(
        changed=True,
        message=(
            f"statistics of {count_text(fields, 'column')} of snapshot {entry.snapshot_id} "
            f"({bytes_text(entry.file_size_in_bytes)}) are in {entry.statistics_path}"
        ),
        files_added=1,
        bytes_added=entry.file_size_in_bytes,
        snapshot_before=detail["snapshot_before"],
        snapshot_after=table.metadata.current_snapshot_id,
        details={"snapshot": entry.snapshot_id, "statistics_path": entry.statistics_path, "fields": detail["fields"]},
    )
