"""Metrics against pyiceberg's own inspection tables, which read manifests by code of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import append_files, create_table, data_files, lake, rows
from pyiceberg.table import Table

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.health.metrics import collect_metrics
from airflow_provider_floe.health.report import ScanMode, Source, TableMetrics
from airflow_provider_floe.iceberg.files import FileContent
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.policies.model import HealthThresholds

THRESHOLDS = HealthThresholds(small_file_size_bytes=1_200, large_file_size_bytes=2_000)


def unpartitioned(path: Path) -> Table:
    return append_files(create_table(lake(path)), 3)


def partitioned(path: Path) -> Table:
    table = append_files(create_table(lake(path), partitioned=True), 2, parts=("a", "b", "c"))
    return append_files(table, 4, rows_each=300, parts=("a",), start=1000)


def evolved(path: Path) -> Table:
    """Files under two partition specs and two schemas, some rows deleted."""
    table = append_files(create_table(lake(path), partitioned=True), 2, parts=("a", "b"))
    with table.update_spec() as spec:
        spec.add_identity("text")
    with table.update_schema() as schema:
        schema.rename_column("text", "words")
    table = table.refresh()
    names = [field.name for field in table.schema().fields]
    table.append(rows(100, 3, "c").rename_columns(names))
    table.delete("id = 100")
    return table.refresh()


def with_deletes(path: Path) -> Table:
    table = append_files(create_table(lake(path), partitioned=True), 2, parts=("a", "b"))
    paths = [file.file_path for file in data_files(table)]
    position_delete(table, {path: [0, 3] for path in paths})
    position_delete(table, {paths[0]: [1]}, file_scoped=True)
    equality_delete(table, rows(5, 1), ["id"], partition=["b"])
    return table


def version_1(path: Path) -> Table:
    table = create_table(lake(path), partitioned=True, properties={"format-version": "1"})
    return append_files(table, 3, parts=("a", "b"))


def emptied(path: Path) -> Table:
    table = unpartitioned(path)
    table.delete("id >= 0")
    return table.refresh()


def upgraded(path: Path) -> Table:
    """Manifests of format version 1 in a table of version 2."""
    table = version_1(path)
    with table.transaction() as transaction:
        transaction.upgrade_table_version(2)
    return append_files(table.refresh(), 1)


SHAPES = [unpartitioned, partitioned, evolved, with_deletes, version_1, upgraded, emptied]


def inspected(table: Table) -> dict[str, Any]:
    """The same figures by pyiceberg."""
    files = table.inspect.files()
    data = files.filter(pc.equal(files["content"], 0))
    sizes = data["file_size_in_bytes"].to_pylist()
    kinds = pa.compute.value_counts(files["content"]).to_pylist()
    kinds = {entry["values"]: entry["counts"] for entry in kinds}
    deletes = sum(count for content, count in kinds.items() if content != 0)
    partitions: dict[Any, int] = {}
    for task in live_entries(table):
        partitions[task] = partitions.get(task, 0) + 1
    manifests = table.inspect.manifests()
    snapshots = table.inspect.snapshots()["committed_at"].to_pylist()
    return {
        "data_file_count": len(sizes),
        "total_data_size_bytes": sum(sizes),
        "record_count": pc.sum(data["record_count"]).as_py() or 0,
        "min_file_size_bytes": min(sizes, default=None),
        "max_file_size_bytes": max(sizes, default=None),
        "small_file_count": sum(size < 1_200 for size in sizes),
        "large_file_count": sum(size > 2_000 for size in sizes),
        "position_delete_file_count": kinds.get(1, 0),
        "equality_delete_file_count": kinds.get(2, 0),
        "delete_file_count": deletes,
        "delete_file_ratio": deletes / len(sizes) if sizes else None,
        "partition_count": len(partitions),
        "partition_skew": max(partitions.values()) * len(partitions) / len(sizes) if sizes else None,
        "manifest_count": manifests.num_rows,
        "total_manifest_size_bytes": pc.sum(manifests["length"]).as_py() or 0,
        "snapshot_count": len(snapshots),
        "oldest": min(snapshots),
        "newest": max(snapshots),
    }


def live_entries(table: Table) -> list[Any]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return [
        (entry.data_file.spec_id, tuple(entry.data_file.partition))
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
        if entry.data_file.content == 0
    ]


def figures(metrics: TableMetrics, names: Any) -> dict[str, Any]:
    found = {name: getattr(metrics, name) for name in names if name not in ("oldest", "newest")}
    assert metrics.oldest_snapshot_at is not None
    assert metrics.newest_snapshot_at is not None
    return {
        **found,
        "oldest": metrics.oldest_snapshot_at.replace(tzinfo=None),
        "newest": metrics.newest_snapshot_at.replace(tzinfo=None),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scan_finds_what_pyiceberg_finds(shape: Any, tmp_path: Path) -> None:
    table = shape(tmp_path)
    expected = inspected(table)
    metrics = collect_metrics(table, ScanMode.SCAN, THRESHOLDS)
    assert figures(metrics, expected) == expected
    assert sum((metrics.file_size_histogram or {}).values()) == expected["data_file_count"]
    assert set(metrics.sources.values()) <= {Source.METADATA, Source.MANIFEST_LIST, Source.MANIFESTS}
    assert metrics.notes == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_metadata_mode_opens_no_manifest_and_says_nothing_wrong(shape: Any, tmp_path: Path) -> None:
    table = shape(tmp_path)
    expected = inspected(table)
    for manifest in snapshot_manifests(table):
        Path(manifest.manifest_path.removeprefix("file://")).unlink()
    metrics = collect_metrics(table, ScanMode.METADATA, THRESHOLDS)
    for name, value in figures(metrics, expected).items():
        assert value is None or value == expected[name], name
    assert metrics.data_file_count == expected["data_file_count"]
    assert metrics.record_count == expected["record_count"]
    assert metrics.delete_file_count == expected["delete_file_count"]


def test_a_sample_of_everything_is_exact(tmp_path: Path) -> None:
    table = partitioned(tmp_path)
    sampled = collect_metrics(table, ScanMode.SAMPLE, THRESHOLDS)
    assert sampled == collect_metrics(table, ScanMode.SCAN, THRESHOLDS)


def test_a_sample_scales_up_and_is_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = append_files(create_table(lake(tmp_path), partitioned=True), 8, parts=("a", "b"))
    monkeypatch.setattr("airflow_provider_floe.health.reading.SAMPLED_DATA_FILES", 5)
    metrics = collect_metrics(table, ScanMode.SAMPLE, HealthThresholds())
    assert metrics == collect_metrics(table, ScanMode.SAMPLE, HealthThresholds())
    assert metrics.notes == ("5 of 16 manifests were read as a sample",)
    assert (metrics.data_file_count, metrics.small_file_count) == (16, 16)
    assert metrics.sources["small_file_count"] is Source.SAMPLE
    assert metrics.sources["data_file_count"] is Source.SUMMARY
    assert metrics.partition_count is None
    assert metrics.partition_skew is None


def test_a_wrong_summary_is_not_believed(tmp_path: Path) -> None:
    table = unpartitioned(tmp_path)
    tell(table, **{"total-data-files": "7"})
    metrics = collect_metrics(table, ScanMode.METADATA, THRESHOLDS)
    assert metrics.data_file_count == 3
    assert metrics.sources["data_file_count"] is Source.MANIFEST_LIST
    assert metrics.total_data_size_bytes is None
    assert metrics.notes == (
        "the snapshot's summary says total-data-files=7, its manifest list 3; the summary is not used",
    )


def test_a_summary_without_totals_is_done_without(tmp_path: Path) -> None:
    table = unpartitioned(tmp_path)
    tell(table, **{"total-data-files": None})
    metrics = collect_metrics(table, ScanMode.METADATA, THRESHOLDS)
    assert metrics.data_file_count == 3
    assert "lacks total-data-files" in metrics.notes[0]


def tell(table: Table, **totals: str | None) -> None:
    """Change what the current snapshot's summary says."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    said = snapshot.summary.additional_properties
    for key, value in totals.items():
        if value is None:
            del said[key]
        else:
            said[key] = value


def test_a_table_without_a_snapshot_is_empty(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    for mode in ScanMode:
        metrics = collect_metrics(table, mode, THRESHOLDS)
        assert (metrics.data_file_count, metrics.snapshot_count, metrics.manifest_count) == (0, 0, 0)
        assert metrics.oldest_snapshot_at is None


def test_manifests_are_not_opened_twice(tmp_path: Path) -> None:
    table = partitioned(tmp_path)
    before = collect_metrics(table, ScanMode.SCAN, THRESHOLDS)
    for manifest in snapshot_manifests(table):
        Path(manifest.manifest_path.removeprefix("file://")).unlink()
    assert collect_metrics(table, ScanMode.SCAN, THRESHOLDS) == before


def test_other_thresholds_count_anew_from_the_same_sums(tmp_path: Path) -> None:
    table = partitioned(tmp_path)
    sizes = sorted(file.file_size_in_bytes for file in data_files(table))
    for size in (sizes[0], sizes[len(sizes) // 2] + 1, sizes[-1] + 1):
        thresholds = HealthThresholds(small_file_size_bytes=size, large_file_size_bytes=size)
        metrics = collect_metrics(table, ScanMode.SCAN, thresholds)
        assert metrics.small_file_count == sum(own < size for own in sizes)
        assert metrics.large_file_count == sum(own > size for own in sizes)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    table = unpartitioned(tmp_path)
    gone = snapshot_manifests(table)[0].manifest_path
    Path(gone.removeprefix("file://")).unlink()
    with pytest.raises(TableUnreadable, match=gone):
        collect_metrics(table, ScanMode.SCAN, THRESHOLDS)


def test_a_manifest_cut_off_between_blocks_is_noticed(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), partitioned=True)
    table.append(pa.concat_tables([rows(0, 3, "a"), rows(3, 3, "b")]))
    file = Path(snapshot_manifests(table)[0].manifest_path.removeprefix("file://"))
    data = file.read_bytes()
    sync = data[-16:]
    file.write_bytes(data[: data[:-16].rindex(sync) + 16])
    with pytest.raises(TableUnreadable, match="is cut off"):
        list(live_files(table.io, snapshot_manifests(table)))


@pytest.mark.parametrize("shape", SHAPES)
def test_live_files_are_those_of_pyiceberg(shape: Any, tmp_path: Path) -> None:
    table = shape(tmp_path)
    snapshot = table.current_snapshot()
    expected = [
        (
            file.file_path,
            int(file.content),
            file.file_format.value,
            file.spec_id,
            tuple(file.partition),
            file.record_count,
            file.file_size_in_bytes,
            entry.sequence_number,
            entry.snapshot_id,
            tuple(file.equality_ids) if file.equality_ids else None,
        )
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
        for file in [entry.data_file]
    ]
    found = [
        (
            file.path,
            int(file.content),
            file.file_format,
            file.spec_id,
            file.partition,
            file.record_count,
            file.file_size_bytes,
            file.sequence_number,
            file.snapshot_id,
            file.equality_ids,
        )
        for file in live_files(table.io, snapshot_manifests(table))
    ]
    assert found == expected


def test_position_deletes_name_their_data_file_only_when_it_is_the_only_one(tmp_path: Path) -> None:
    table = with_deletes(tmp_path)
    deletes = live_files(table.io, snapshot_manifests(table), content=FileContent.POSITION_DELETES)
    scoped = [file.referenced_data_file for file in deletes]
    first = data_files(table)
    assert sorted(path is None for path in scoped) == [False, True, True]
    assert next(path for path in scoped if path) in {file.file_path for file in first}
