"""Rewriting data files: each kind of table and each setting, on each engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from conformance import REWRITE, Target
from conformance_lake import Lake
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import append_files, data_files, delete_files, rows
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType

pytestmark = pytest.mark.services


@pytest.mark.every_version
def test_small_files_become_one_in_each_partition(target: Target, lake: Lake) -> None:
    done = target.maintain(lake.table(3, parts=("a", "b'c")), REWRITE)
    assert Counter(file.partition[0] for file in data_files(done.table)) == {"a": 1, "b'c": 1}


def test_partitions_by_bucket_and_month(target: Target, lake: Lake) -> None:
    name = lake.spark_table("id BIGINT, ts TIMESTAMP", partitioned_by="bucket(2, id), months(ts)")
    for start in (0, 10, 20):
        days = "timestamp '2026-01-20 10:00:00' + make_interval(0, 0, 0, CAST(id % 3 AS INT) * 20)"
        lake.sql(f"INSERT INTO {name} SELECT id, {days} FROM range({start}, {start + 10})")
    table = lake.load(name)
    partitions = {tuple(file.partition) for file in data_files(table)}
    assert len(partitions) == 6
    done = target.maintain(table, REWRITE)
    assert Counter(tuple(file.partition) for file in data_files(done.table)) == dict.fromkeys(partitions, 1)


def test_files_under_two_specs(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b"))
    with table.update_spec() as update:
        update.remove_field("part")
        update.add_field("text", IdentityTransform(), "by_text")
    for _ in range(2):
        table.append(pa.table({"id": [100, 101], "part": ["a", "b"], "text": ["x", "y"]}))
    done = target.maintain(table, REWRITE)
    # The local engine leaves rows under the spec that they have, where the policy names none
    specs = {0, 1} if target.is_one_of("local") else {1}
    assert {file.spec_id for file in data_files(done.table)} == specs


def test_files_under_older_schemas(target: Target, lake: Lake) -> None:
    name = lake.spark_table("id INT, price FLOAT, gone STRING, name STRING")
    lake.sql(
        f"INSERT INTO {name} VALUES (1, 1.5, 'x', 'one'), (2, NULL, 'y', NULL)",
        f"ALTER TABLE {name} ALTER COLUMN id TYPE BIGINT",
        f"ALTER TABLE {name} ALTER COLUMN price TYPE DOUBLE",
        f"ALTER TABLE {name} DROP COLUMN gone",
        f"ALTER TABLE {name} RENAME COLUMN name TO label",
        f"ALTER TABLE {name} ADD COLUMN gone BIGINT",
        f"ALTER TABLE {name} ADD COLUMN inner STRUCT<deep: ARRAY<STRING>>",
        f"INSERT INTO {name} VALUES (5000000000, 2.5, 'three', 7, named_struct('deep', array('a', NULL)))",
    )
    done = target.maintain(lake.load(name), REWRITE)
    assert len(data_files(done.table)) == 1
    assert sorted(lake.sql(f"REFRESH TABLE {name}", f"SELECT id, price, label, gone FROM {name}")) == [
        [1, 1.5, "one", None],
        [2, None, None, None],
        [5000000000, 2.5, "three", 7],
    ]


def test_position_deletes_are_applied(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b"))
    first, *_, last = data_files(table)
    position_delete(table, {first.file_path: [0, 1, 2], last.file_path: [9]})
    # Spark leaves the files of deletes that it has applied, unless it is told
    done = target.maintain(table, REWRITE, {"removeDanglingDeletes": True} if target.is_one_of("spark") else {})
    assert not delete_files(done.table)
    assert sum(file.record_count for file in data_files(done.table)) == 36


def test_equality_deletes_are_applied(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b"))
    equality_delete(table, pa.table({"id": pa.array([11, 12], pa.int64())}), ["id"], partition=("b",))
    table.append(rows(11, 1, "b"))  # after the delete, so it stays
    done = target.maintain(table, REWRITE)
    assert not delete_files(done.table)
    assert sum(file.record_count for file in data_files(done.table)) == 39


def test_a_single_file_of_a_good_size_is_rewritten_for_its_deletes(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    (file,) = data_files(table)
    position_delete(table, {file.file_path: [4]})
    settings = {"targetFileSizeBytes": file.file_size_in_bytes}
    if target.is_one_of("trino-483"):
        target.refuses("no session property target_max_file_size", table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    assert [file.record_count for file in data_files(done.table)] == [9]


def test_deletion_vectors_of_version_3_are_applied_and_rows_keep_their_ids(target: Target, lake: Lake) -> None:
    properties = {"format-version": "3", "write.delete.mode": "merge-on-read"}
    name = lake.spark_table("id BIGINT, part STRING", partitioned_by="part", properties=properties)
    for start in (0, 10):
        lake.sql(f"INSERT INTO {name} SELECT id, IF(id % 2 = 0, 'a', 'b') FROM range({start}, {start + 10})")
    lake.sql(f"DELETE FROM {name} WHERE id % 5 = 0")
    table = lake.load(name)
    vectors = delete_files(table)
    assert {str(file.file_format) for file in vectors} == {"FileFormat.PUFFIN"}
    if refusal := target.refused_feature(REWRITE, "format-v3", "deletion-vectors"):
        target.refuses(refusal, table, REWRITE)
        return
    done = target.maintain(table, REWRITE)
    assert done.before.lineage is not None
    assert not delete_files(done.table)


def test_branches_and_tags_keep_what_they_show(target: Target, lake: Lake) -> None:
    table = lake.table(2)
    tagged = table.metadata.current_snapshot_id
    assert tagged is not None
    table.manage_snapshots().create_tag(tagged, "audit").create_branch(tagged, "side").commit()
    table.append(rows(500, 10))
    done = target.maintain(table, REWRITE)
    assert {name: found for name, (found, _) in done.after.refs.items()} == {"audit": tagged, "side": tagged}


def test_only_files_that_may_match_the_filter(target: Target, lake: Lake) -> None:
    table = lake.table(6)
    done = target.maintain(table, REWRITE, {"filter": "id >= 30 and text is not null"})
    assert len(done.before.data.keys() & done.after.data.keys()) == 3
    assert len(done.after.data) == 4


def test_the_target_size_says_which_files_are_small(target: Target, lake: Lake) -> None:
    table = lake.table(2)
    large = rows(1000, 20_000)
    table.append(large)
    size = max(file.file_size_in_bytes for file in data_files(table))
    if target.is_one_of("trino-483"):
        target.refuses("no session property target_max_file_size", table, REWRITE, {"targetFileSizeBytes": size})
        return
    done = target.maintain(table, REWRITE, {"targetFileSizeBytes": size})
    assert len(done.after.data) == 2, "the large file stays"


def test_files_that_are_too_large_are_split(target: Target, lake: Lake) -> None:
    table = lake.table(0, properties={"write.parquet.row-group-size-bytes": "16384"})
    table.append(rows(0, 60_000))
    (file,) = data_files(table)
    settings = {"targetFileSizeBytes": file.file_size_in_bytes // 5}
    if target.is_one_of("trino-483"):
        target.refuses("no session property target_max_file_size", table, REWRITE, settings)
        return
    if target.is_one_of("trino"):
        # Trino never splits
        assert "none of 1 files is worth rewriting" in target.changes_nothing(table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    assert len(done.after.data) >= 2


def ids_in_files(table: Table) -> list[list[int]]:
    """The ids in each data file, in their order there."""
    import pyarrow.parquet as pq

    found = []
    for file in data_files(table):
        with table.io.new_input(file.file_path).open() as stream:
            found.append(pq.read_table(stream)["id"].to_pylist())
    return found


def shuffled(lake: Lake, **options: Any) -> Table:
    table = lake.table(0, **options)
    for ids in ([5, 1, 9], [8, 2, 7], [3, 6, 4]):
        table.append(pa.table({"id": ids, "part": ["a"] * 3, "text": [f"t{10 - number}" for number in ids]}))
    return table


SORTS: Mapping[str, tuple[Mapping[str, Any], list[int]]] = {
    "upwards": ({"strategy": "SORT", "sortOrder": ["id"]}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    "downwards": ({"strategy": "SORT", "sortOrder": ["id DESC NULLS LAST"]}, [9, 8, 7, 6, 5, 4, 3, 2, 1]),
}


@pytest.mark.parametrize("order", SORTS)
def test_sorting_by_the_order_of_the_policy(target: Target, lake: Lake, order: str) -> None:
    settings, expected = SORTS[order]
    table = shuffled(lake, parts=("a",))
    if target.is_one_of("trino", "spark-4.1"):
        target.refuses("setting strategy='SORT'", table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    assert ids_in_files(done.table) == [expected]


def test_sorting_by_the_order_of_the_table(target: Target, lake: Lake) -> None:
    table = shuffled(lake)
    with table.update_sort_order() as update:
        update.desc("id", IdentityTransform())
    if target.is_one_of("spark-4.1"):
        target.refuses("setting strategy='SORT'", table, REWRITE, {"strategy": "SORT"})
        return
    # Trino writes in the table's order always, and so needs not be told
    done = target.maintain(table, REWRITE, {} if target.is_one_of("trino") else {"strategy": "SORT"})
    assert ids_in_files(done.table) == [[9, 8, 7, 6, 5, 4, 3, 2, 1]]


def test_ordering_along_a_z_curve(target: Target, lake: Lake) -> None:
    table = shuffled(lake)
    settings = {"strategy": "ZORDER", "zOrderColumns": ["id", "text"]}
    if target.is_one_of("trino", "spark-4.1"):
        target.refuses("setting strategy='ZORDER'", table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    (ids,) = ids_in_files(done.table)
    assert sorted(ids) == [1, 2, 3, 4, 5, 6, 7, 8, 9] != ids


def test_files_are_written_under_the_spec_of_the_policy(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b"))
    with table.update_spec() as update:
        update.remove_field("part")
    append_files(table, 2, start=900)
    settings = {"outputSpecId": 0}
    if target.is_one_of("trino"):
        target.refuses("setting outputSpecId=0", table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    assert {file.spec_id for file in data_files(done.table)} == {0}


def test_commits_one_after_the_other(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b", "c"))
    settings = {"partialProgressEnabled": True, "partialProgressMaxCommits": 3, "maxConcurrentFileGroupRewrites": 1}
    if target.is_one_of("trino"):
        target.refuses("setting partialProgressEnabled=True", table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    assert len(done.after.data) == 3


def test_deletes_that_apply_to_nothing_are_removed(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b"))
    position_delete(table, {data_files(table)[0].file_path: [0]})
    settings = {"removeDanglingDeletes": True}
    if target.is_one_of("trino"):
        target.refuses("setting removeDanglingDeletes=True", table, REWRITE, settings)
        return
    equality_delete(table, pa.table({"id": pa.array([-1], pa.int64())}), ["id"], partition=("a",))
    done = target.maintain(table, REWRITE, settings)
    assert not delete_files(done.table)


def test_sequence_numbers_of_the_commit(target: Target, lake: Lake) -> None:
    table = lake.table(2)
    settings = {"useStartingSequenceNumber": False}
    if target.is_one_of("trino"):
        target.refuses("setting useStartingSequenceNumber=False", table, REWRITE, settings)
        return
    done = target.maintain(table, REWRITE, settings)
    assert [sequence for _, sequence, _ in done.after.live] == [done.table.metadata.last_sequence_number]


def test_tables_without_work_are_left_alone(target: Target, lake: Lake) -> None:
    for table in (lake.table(0), lake.table(1), lake.table(1, parts=("a", "b"))):
        target.nothing_to_do(table, REWRITE)


def test_a_table_that_forbids_deletion_is_rewritten_all_the_same(target: Target, lake: Lake) -> None:
    done = target.maintain(lake.table(2, properties={"gc.enabled": "false"}), REWRITE)
    assert len(done.after.data) == 1


def test_what_an_owner_switched_off_is_not_done(target: Target, lake: Lake) -> None:
    table = lake.table(2, properties={"floe.rewrite_data_files.enabled": "false"})
    assert "floe.rewrite_data_files.enabled" in " ".join(target.plan(table, REWRITE, {}).reasons)


def test_a_column_that_became_wider_under_the_table(target: Target, lake: Lake) -> None:
    name = lake.spark_table("id INT, part STRING", partitioned_by="part")
    lake.sql(
        f"INSERT INTO {name} VALUES (1, 'a')",
        f"ALTER TABLE {name} ALTER COLUMN id TYPE BIGINT",
        f"INSERT INTO {name} VALUES (2, 'a')",
    )
    done = target.maintain(lake.load(name), REWRITE)
    assert isinstance(done.table.schema().find_type("id"), LongType)
    assert len(done.after.data) == 1
