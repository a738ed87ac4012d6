"""Rewriting manifests: each kind of table and each setting, on each engine."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from conformance import MANIFESTS, Target
from conformance_lake import Lake
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import data_files, rows
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from airflow_provider_floe.iceberg.manifests import snapshot_manifests

pytestmark = pytest.mark.services


@pytest.mark.every_version
def test_many_become_few(target: Target, lake: Lake) -> None:
    done = target.maintain(lake.table(4, parts=("a", "b")), MANIFESTS)
    assert len(done.before.manifests) == 8
    # Trino 476 makes one for each partition
    assert len(done.after.manifests) == (2 if target.is_one_of("trino-476") else 1)


def test_each_spec_keeps_its_own(target: Target, lake: Lake) -> None:
    table = two_specs(lake)
    done = target.maintain(table, MANIFESTS)
    assert sorted(one.partition_spec_id for one in snapshot_manifests(done.table)) == [0, 1]


def test_those_of_one_spec(target: Target, lake: Lake) -> None:
    table = two_specs(lake)
    settings = {"specId": 0}
    if target.is_one_of("trino"):
        target.refuses("setting specId=0", table, MANIFESTS, settings)
        return
    done = target.maintain(table, MANIFESTS, settings)
    assert sorted(one.partition_spec_id for one in snapshot_manifests(done.table)) == [0, 1, 1]


def two_specs(lake: Lake) -> Table:
    table = lake.table(3, parts=("a",))
    with table.update_spec() as update:
        update.remove_field("part")
    for start in (900, 910):
        table.append(rows(start, 5))
    return table


def test_delete_files_stay_where_they_apply(target: Target, lake: Lake) -> None:
    table = lake.table(3, parts=("a", "b"))
    for file in data_files(table)[:2]:
        position_delete(table, {file.file_path: [0]})
    equality_delete(table, pa.table({"id": pa.array([3], pa.int64())}), ["id"], partition=("a",))
    # Trino leaves the manifests of deletes as they are
    done = target.maintain(table, MANIFESTS, again="run" if target.is_one_of("trino") else "no work")
    contents = Counter(one.content for one in snapshot_manifests(done.table))
    if target.is_one_of("trino"):
        data = 2 if target.is_one_of("trino-476") else 1
        assert contents == {ManifestContent.DATA: data, ManifestContent.DELETES: 3}
        assert "leaves those of delete files" in target.changes_nothing(done.table, MANIFESTS)
    else:
        assert contents == {ManifestContent.DATA: 1, ManifestContent.DELETES: 1}


def test_manifests_of_version_3(target: Target, lake: Lake) -> None:
    properties = {"format-version": "3", "write.delete.mode": "merge-on-read"}
    name = lake.spark_table("id BIGINT, part STRING", partitioned_by="part", properties=properties)
    for start in (0, 10, 20):
        lake.sql(f"INSERT INTO {name} SELECT id, 'a' FROM range({start}, {start + 10})")
    lake.sql(f"DELETE FROM {name} WHERE id % 5 = 0")
    table = lake.load(name)
    if refusal := target.refused_feature(MANIFESTS, "format-v3", "deletion-vectors"):
        target.refuses(refusal, table, MANIFESTS)
        return
    done = target.maintain(table, MANIFESTS)
    assert done.before.lineage is not None


def test_files_are_clustered_by_the_fields_of_the_policy(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("b", "a"))
    settings = {"sortBy": ["part"]}
    if target.is_one_of("trino", "spark-4.1"):
        target.refuses("setting sortBy=['part']", table, MANIFESTS, settings)
        return
    done = target.maintain(table, MANIFESTS, settings)
    assert [file.partition[0] for file in data_files(done.table)] == ["a", "a", "b", "b"]


def test_only_manifests_that_the_policy_chooses(target: Target, lake: Lake) -> None:
    table = lake.table(3)
    table.append(rows(900, 5))
    settings = {"rewriteIf": {"content": "DATA", "addedRowsCount": 10}}
    if target.is_one_of("trino", "spark-4.1"):
        target.refuses("setting rewriteIf=", table, MANIFESTS, settings)
        return
    done = target.maintain(table, MANIFESTS, settings)
    assert len(done.before.manifests & done.after.manifests) == 1
    assert len(done.after.manifests) == 2


def test_manifests_are_written_to_the_staging_location(target: Target, lake: Lake) -> None:
    table = lake.table(3)
    settings = {"stagingLocation": f"{table.location()}/metadata/staging"}
    if target.is_one_of("trino", "spark-4.1"):
        target.refuses("setting stagingLocation=", table, MANIFESTS, settings)
        return
    done = target.maintain(table, MANIFESTS, settings)
    assert len(done.after.manifests) == 1


def test_branches_and_tags_keep_what_they_show(target: Target, lake: Lake) -> None:
    table = lake.table(3)
    tagged = table.metadata.snapshots[1].snapshot_id
    table.manage_snapshots().create_tag(tagged, "audit").create_branch(tagged, "side").commit()
    done = target.maintain(table, MANIFESTS)
    assert {name: found for name, (found, _) in done.after.refs.items()} == {"audit": tagged, "side": tagged}


def test_tables_without_work_are_left_alone(target: Target, lake: Lake) -> None:
    for table in (lake.table(0), lake.table(1), lake.table(1, parts=("a",))):
        target.nothing_to_do(table, MANIFESTS)
