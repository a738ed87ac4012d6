from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import append_files, create_table, data_files, lake, rows, stored_files, table_ref
from harness.version_3 import upgrade
from pyiceberg.table import Table

from airflow_provider_floe.engines.capabilities import TableFeature
from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.health import assess
from airflow_provider_floe.health.report import HealthReport, IssueType, ScanMode
from airflow_provider_floe.iceberg.features import table_features
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import (
    ComputeTableStats,
    ExpireSnapshots,
    HealthThresholds,
    OperationSettings,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
    RewritePositionDeleteFiles,
)
from airflow_provider_floe.tables import Operation

ALL: dict[Operation, OperationSettings] = {
    Operation.REWRITE_DATA_FILES: RewriteDataFiles(),
    Operation.REWRITE_POSITION_DELETE_FILES: RewritePositionDeleteFiles(),
    Operation.REWRITE_MANIFESTS: RewriteManifests(),
    Operation.COMPUTE_TABLE_STATS: ComputeTableStats(),
    Operation.EXPIRE_SNAPSHOTS: ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1)),
    Operation.REMOVE_ORPHAN_FILES: OrphanCleanup(),
}
LATER = datetime.now(UTC) + timedelta(days=10)


def report(table: Table, *, mode: ScanMode = ScanMode.SCAN, **changes: Any) -> HealthReport:
    arguments: dict[str, Any] = {
        "mode": mode,
        "thresholds": HealthThresholds(),
        "settings": ALL,
        "now": LATER,
        "orphan_listing_limit": 1000,
        **changes,
    }
    return assess.assess_table(table, table_ref(table), **arguments)


def test_a_report_holds_facts_metrics_issues_and_work(tmp_path: Path) -> None:
    table = append_files(
        create_table(lake(tmp_path), properties={"write.format.default": "parquet", "owner": "me"}), 12
    )
    found = report(table)
    assert found.table.ref() == table_ref(table)
    assert found.assessed_at == LATER
    assert found.facts.uuid == str(table.metadata.table_uuid)
    assert found.facts.snapshot_id == table.metadata.current_snapshot_id
    assert found.facts.metadata_location == table.metadata_location
    assert found.facts.properties["write.format.default"] == "parquet"
    assert "owner" not in found.facts.properties
    assert found.metrics.small_file_count == 12
    types = {issue.type for issue in found.issues}
    assert types == {IssueType.TOO_MANY_SMALL_FILES, IssueType.OLD_SNAPSHOTS, IssueType.STALE_METADATA}
    rewrite = found.work[Operation.REWRITE_DATA_FILES]
    assert (rewrite.found, rewrite.files_in, rewrite.files_out) == (True, 12, 1)
    expire = found.work[Operation.EXPIRE_SNAPSHOTS]
    assert (expire.found, expire.snapshots) == (True, 11)
    assert set(found.work) == set(Operation)
    assert all(work.summary for work in found.work.values())


def test_a_report_survives_storing(tmp_path: Path) -> None:
    found = report(append_files(create_table(lake(tmp_path), partitioned=True), 2, parts=("a", "b")))
    assert HealthReport.model_validate_json(found.model_dump_json()) == found


def test_assessing_writes_nothing(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path)), 3)
    before = stored_files(table)
    for mode in ScanMode:
        report(table, mode=mode)
    assert stored_files(table) == before
    assert table.refresh().metadata_location == table.metadata_location


def test_only_governed_operations_have_work(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path)), 2)
    only = {Operation.EXPIRE_SNAPSHOTS: ALL[Operation.EXPIRE_SNAPSHOTS]}
    assert set(report(table, settings=only).work) == set(only)


def test_an_operation_whose_work_cannot_be_told_does_not_fail_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(assess, "expire_work", fail)
    found = report(append_files(create_table(lake(tmp_path)), 3))
    assert found.work[Operation.EXPIRE_SNAPSHOTS].found is None
    assert "OSError: disk on fire" in found.work[Operation.EXPIRE_SNAPSHOTS].summary
    assert found.work[Operation.REWRITE_DATA_FILES].found is True


def test_without_opening_manifests_the_rewrite_is_not_known(tmp_path: Path) -> None:
    found = report(append_files(create_table(lake(tmp_path)), 3), mode=ScanMode.METADATA)
    assert found.work[Operation.REWRITE_DATA_FILES].found is None
    assert found.work[Operation.EXPIRE_SNAPSHOTS].found is True


def test_the_work_on_a_table_with_too_many_files_is_told_without_keeping_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = append_files(create_table(lake(tmp_path)), 3)
    kept = report(table)
    monkeypatch.setattr("airflow_provider_floe.health.reading.MAX_KEPT_FILES", 2)
    found = report(table)
    assert found.metrics.small_file_count == 3
    assert found.work[Operation.REWRITE_DATA_FILES].files_in == 3
    assert found.work[Operation.REWRITE_DATA_FILES] == kept.work[Operation.REWRITE_DATA_FILES]


def test_an_empty_table_has_nothing_to_rewrite(tmp_path: Path) -> None:
    for mode in ScanMode:
        found = report(create_table(lake(tmp_path / mode)), mode=mode)
        assert found.work[Operation.REWRITE_DATA_FILES].found is False
        assert [issue.type for issue in found.issues] == [IssueType.TABLE_EMPTY]


def test_an_encrypted_table_is_reported_without_its_manifests(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path), properties={"encryption.key-id": "k"}), 3)
    found = report(table)
    assert found.metrics.data_file_count == 3
    assert found.metrics.small_file_count is None
    assert TableFeature.ENCRYPTED in found.facts.features
    assert "encrypted" in found.work[Operation.REWRITE_DATA_FILES].summary


def test_a_missing_manifest_makes_the_table_unreadable(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path)), 2)
    gone = snapshot_manifests(table)[0].manifest_path
    Path(gone.removeprefix("file://")).unlink()
    with pytest.raises(TableUnreadable, match=gone):
        report(table)


def test_a_missing_manifest_list_makes_the_table_unreadable(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path)), 2)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    Path(snapshot.manifest_list.removeprefix("file://")).unlink()
    with pytest.raises(TableUnreadable, match=snapshot.manifest_list):
        report(table, mode=ScanMode.METADATA)


def test_a_table_of_format_version_3_is_assessed(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path)), 3)
    file = Path(table.metadata_location.removeprefix("file://"))
    metadata = {**json.loads(file.read_text()), "format-version": 3, "next-row-id": 100}
    file.write_text(json.dumps(metadata))
    found = report(table.refresh())
    assert found.facts.format_version == 3
    assert found.facts.features == (TableFeature.FORMAT_V3,)
    assert found.metrics.data_file_count == 3
    assert None not in [found.work[operation].summary for operation in Operation]


def plain(path: Path) -> Table:
    return append_files(create_table(lake(path)), 2)


def with_positions(path: Path) -> Table:
    table = plain(path)
    position_delete(table, {data_files(table)[0].file_path: [0]})
    return table


def with_equalities(path: Path) -> Table:
    table = plain(path)
    equality_delete(table, rows(3, 1), ["id"])
    return table


def with_refs(path: Path) -> Table:
    table = plain(path)
    snapshot = table.metadata.current_snapshot_id
    assert snapshot is not None
    table.manage_snapshots().create_tag(snapshot, "release").create_branch(snapshot, "audit").commit()
    return table.refresh()


def with_new_spec(path: Path) -> Table:
    table = plain(path)
    with table.update_spec() as spec:
        spec.add_identity("part")
    return table.refresh()


def with_an_unknown_type(path: Path) -> Table:
    table = upgrade(plain(path))
    file = Path(table.metadata_location.removeprefix("file://"))
    metadata = json.loads(file.read_text())
    metadata["schemas"][0]["fields"].append({"id": 9, "name": "later", "type": "unknown", "required": False})
    file.write_text(json.dumps(metadata))
    return table.refresh()


def nested(path: Path) -> Table:
    schema = pa.schema([("id", pa.int64()), ("tags", pa.list_(pa.string()))])
    return lake(path).create_table("db.nested", schema=schema)


def with_properties(path: Path) -> Table:
    properties = {
        "gc.enabled": "False",
        "schema.name-mapping.default": "[]",
        "write.format.default": "ORC",
        "format-version": "1",
    }
    return create_table(lake(path), properties=properties)


@pytest.mark.parametrize(
    ("make", "features"),
    [
        (plain, ()),
        (with_positions, (TableFeature.POSITION_DELETES,)),
        (with_equalities, (TableFeature.EQUALITY_DELETES,)),
        (with_refs, (TableFeature.BRANCHES, TableFeature.TAGS)),
        (with_new_spec, (TableFeature.SPEC_EVOLUTION,)),
        (nested, (TableFeature.NESTED_TYPES,)),
        (with_an_unknown_type, (TableFeature.FORMAT_V3, TableFeature.UNKNOWN_OR_GEO_TYPES)),
        (
            with_properties,
            (
                TableFeature.FORMAT_V1,
                TableFeature.NAME_MAPPING,
                TableFeature.NON_PARQUET_FILES,
                TableFeature.GC_DISABLED,
            ),
        ),
    ],
)
def test_features_in_every_mode(make: Any, features: tuple[TableFeature, ...], tmp_path: Path) -> None:
    table = make(tmp_path)
    for mode in (ScanMode.METADATA, ScanMode.SAMPLE, ScanMode.SCAN):
        found = report(table, mode=mode, settings={}).facts.features
        if make is with_properties and mode is not ScanMode.METADATA:
            assert set(found) == set(features) - {TableFeature.NON_PARQUET_FILES}  # no file is there yet
        else:
            assert found == features


def test_deletes_of_unknown_kind_count_as_every_kind(tmp_path: Path) -> None:
    table = with_positions(tmp_path)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    for kind in ("position", "equality"):
        del snapshot.summary.additional_properties[f"total-{kind}-deletes"]
    found = table_features(table, snapshot_manifests(table))
    assert found == (TableFeature.POSITION_DELETES, TableFeature.EQUALITY_DELETES)
