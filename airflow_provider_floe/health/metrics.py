"""Metrics of one table, each from the cheapest source that is right: metadata file, manifest list, manifests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.health.reading import Reading, live_file_count, read_table, split_by_content
from airflow_provider_floe.health.report import ScanMode, Source, TableMetrics
from airflow_provider_floe.iceberg.aggregates import FileAggregate
from airflow_provider_floe.policies.model import HealthThresholds

log = logging.getLogger(__name__)


def collect_metrics(table: Table, mode: ScanMode, thresholds: HealthThresholds) -> TableMetrics:
    """Read the table's current snapshot as deep as ``mode`` says, and measure it.

    :raises TableUnreadable: naming the file that is missing or damaged.
    """
    return metrics_of(table, read_table(table, mode), thresholds)


def metrics_of(table: Table, reading: Reading, thresholds: HealthThresholds) -> TableMetrics:
    """Measure what was read. A deeper source replaces a shallower one only where it covers the whole table."""
    metrics = _Collector(list(reading.notes))
    _from_metadata(metrics, table)
    _from_manifest_list(metrics, table, reading.manifests)
    _from_summary(metrics, table)
    if reading.files is not None and reading.complete:
        _from_manifests(metrics, reading.files, thresholds)
        _compare_with_summary(metrics, table)
    elif reading.files is not None:
        _from_sample(metrics, reading.files, thresholds)
    _derive(metrics)
    for note in metrics.notes:
        log.info("%s: %s", ".".join(table.name()), note)
    return TableMetrics(**metrics.values, sources=metrics.sources, notes=tuple(metrics.notes))


class _Collector:
    def __init__(self, notes: list[str]) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, Source] = {}
        self.notes = notes

    def put(self, source: Source, **values: Any) -> None:
        """Set metrics that are known; None sets nothing."""
        for name, value in values.items():
            if value is not None:
                self.values[name] = value
                self.sources[name] = source

    def get(self, name: str) -> Any:
        return self.values.get(name)


def _from_metadata(metrics: _Collector, table: Table) -> None:
    times = [snapshot.timestamp_ms for snapshot in table.metadata.snapshots]
    metrics.put(
        Source.METADATA,
        snapshot_count=len(times),
        oldest_snapshot_at=_time(min(times)) if times else None,
        newest_snapshot_at=_time(max(times)) if times else None,
    )
    if table.metadata.current_snapshot_id is None:
        metrics.put(
            Source.METADATA,
            data_file_count=0,
            total_data_size_bytes=0,
            record_count=0,
            partition_count=0,
            small_file_count=0,
            large_file_count=0,
            file_size_histogram={},
            **_delete_counts(0, 0, 0),
        )


def _from_manifest_list(metrics: _Collector, table: Table, manifests: Sequence[ManifestFile]) -> None:
    data, deletes = split_by_content(manifests)
    metrics.put(
        Source.MANIFEST_LIST,
        manifest_count=len(manifests),
        delete_manifest_count=len(deletes),
        total_manifest_size_bytes=sum(manifest.manifest_length for manifest in manifests),
    )
    if table.metadata.current_snapshot_id is None:
        return
    files, delete_files = live_file_count(data), live_file_count(deletes)
    metrics.put(
        Source.MANIFEST_LIST, data_file_count=files, record_count=_live_rows(data), delete_file_count=delete_files
    )
    if delete_files == 0:
        metrics.put(Source.MANIFEST_LIST, **_delete_counts(0, 0, 0))
    specs = table.metadata.specs()
    if files is not None and all(_unpartitioned(specs, manifest) for manifest in data if _live(manifest)):
        metrics.put(Source.MANIFEST_LIST, partition_count=min(files, 1), partition_skew=1.0 if files else None)


def _from_summary(metrics: _Collector, table: Table) -> None:
    """Totals of the summary are optional, and some writers get them wrong: only what the manifest list bears out."""
    snapshot = table.metadata.current_snapshot()
    if snapshot is None:
        return
    told = snapshot.summary.additional_properties if snapshot.summary else {}
    agrees = True
    for name, key in _COUNTED.items():
        listed, total = metrics.get(name), _number(told.get(key))
        if total is None:
            agrees = False
            metrics.notes.append(f"the snapshot's summary lacks {key}; the manifest list is used instead")
        elif listed is not None and listed != total:
            agrees = False
            metrics.notes.append(
                f"the snapshot's summary says {key}={total}, its manifest list {listed}; the summary is not used"
            )
    if not agrees:
        return
    metrics.put(Source.SUMMARY, **{name: _number(told.get(key)) for name, key in _COUNTED.items()})
    if metrics.get("record_count") is None:
        metrics.put(Source.SUMMARY, record_count=_number(told.get("total-records")))
    deletes = metrics.get("delete_file_count")
    if deletes == 0:
        metrics.put(
            Source.SUMMARY,
            total_data_size_bytes=_number(told.get("total-files-size")),
            **_delete_counts(0, 0, 0),
        )
    elif _number(told.get("total-equality-deletes")) == 0:
        metrics.put(Source.SUMMARY, equality_delete_file_count=0)
        if table.metadata.format_version < 3:
            metrics.put(Source.SUMMARY, position_delete_file_count=deletes, deletion_vector_count=0)
    elif _number(told.get("total-position-deletes")) == 0:
        metrics.put(Source.SUMMARY, **_delete_counts(0, deletes, 0))


_COUNTED = {"data_file_count": "total-data-files", "delete_file_count": "total-delete-files"}


def _from_manifests(metrics: _Collector, files: FileAggregate, thresholds: HealthThresholds) -> None:
    per_partition = [totals.files for totals in files.partitions.values()]
    metrics.put(
        Source.MANIFESTS,
        data_file_count=files.data.files,
        total_data_size_bytes=files.data.size_bytes,
        record_count=files.data.records,
        min_file_size_bytes=files.min_size,
        max_file_size_bytes=files.max_size,
        small_file_count=files.below(thresholds.small_file_size_bytes),
        large_file_count=files.above(thresholds.large_file_size_bytes),
        file_size_histogram=files.histogram(),
        delete_file_count=files.delete_files,
        partition_count=len(per_partition),
        partition_skew=max(per_partition) * len(per_partition) / files.data.files if per_partition else None,
        **_delete_counts(files.position_deletes.files, files.equality_deletes.files, files.deletion_vectors.files),
    )


def _compare_with_summary(metrics: _Collector, table: Table) -> None:
    snapshot = table.metadata.current_snapshot()
    told = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    total = _number(told.get("total-records"))
    if total is not None and total != metrics.get("record_count"):
        metrics.notes.append(
            f"the snapshot's summary says total-records={total}, its manifests {metrics.get('record_count')}"
        )


def _from_sample(metrics: _Collector, files: FileAggregate, thresholds: HealthThresholds) -> None:
    """Scale the sample up to the number of files that the manifest list counts.

    Partitions are not estimated: manifests are often clustered by partition, so that a sample misses most of them.
    """
    sampled = files.data.files
    if count := metrics.get("data_file_count"):
        scale = count / sampled if sampled else 0.0
        metrics.put(
            Source.SAMPLE,
            min_file_size_bytes=files.min_size,
            max_file_size_bytes=files.max_size,
            small_file_count=round(files.below(thresholds.small_file_size_bytes) * scale),
            large_file_count=round(files.above(thresholds.large_file_size_bytes) * scale),
            file_size_histogram={power: round(n * scale) for power, n in files.histogram().items()},
        )
        if metrics.get("total_data_size_bytes") is None:
            metrics.put(Source.SAMPLE, total_data_size_bytes=round(files.data.size_bytes * scale))
    deletes = metrics.get("delete_file_count")
    if deletes and files.delete_files and metrics.get("position_delete_file_count") is None:
        scale = deletes / files.delete_files
        equality, vectors = round(files.equality_deletes.files * scale), round(files.deletion_vectors.files * scale)
        metrics.put(Source.SAMPLE, **_delete_counts(deletes - equality - vectors, equality, vectors))


def _derive(metrics: _Collector) -> None:
    """Ratios, each as exact as the less exact of its two parts."""
    count = metrics.get("data_file_count")
    if not count:
        return
    for name, part, factor in (
        ("avg_file_size_bytes", "total_data_size_bytes", 1.0),
        ("small_file_percentage", "small_file_count", 100.0),
        ("large_file_percentage", "large_file_count", 100.0),
        ("delete_file_ratio", "delete_file_count", 1.0),
    ):
        if (value := metrics.get(part)) is not None:
            metrics.put(metrics.sources[part], **{name: factor * value / count})


def _delete_counts(position: int, equality: int, vectors: int) -> dict[str, int]:
    return {
        "position_delete_file_count": position,
        "equality_delete_file_count": equality,
        "deletion_vector_count": vectors,
    }


def _live(manifest: ManifestFile) -> bool:
    return manifest.added_files_count != 0 or manifest.existing_files_count != 0


def _unpartitioned(specs: Any, manifest: ManifestFile) -> bool:
    return specs[manifest.partition_spec_id].is_unpartitioned()  # type: ignore[no-any-return]


def _live_rows(manifests: Sequence[ManifestFile]) -> int | None:
    rows = 0
    for manifest in manifests:
        if manifest.added_rows_count is None or manifest.existing_rows_count is None:
            return None
        rows += manifest.added_rows_count + manifest.existing_rows_count
    return rows


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
