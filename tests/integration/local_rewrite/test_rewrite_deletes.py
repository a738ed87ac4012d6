"""Delete files: applied by Iceberg's rules, and dropped only when no data file needs them any more."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import (
    BY_PART,
    SCHEMA,
    append_files,
    create_table,
    data_files,
    delete_files,
    entries,
    lake,
    rows,
    small_files,
)
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import LongType, StringType
from rewriting import ids, rewrite, work

from airflow_provider_floe.iceberg.deletes import DeleteIndex
from airflow_provider_floe.iceberg.files import FileContent, LiveFile


def holding(table: Table, row_id: int) -> str:
    """The path of the data file that holds a row, by its bounds."""
    for file in data_files(table):
        low, high = (int.from_bytes(bound[1], "little") for bound in (file.lower_bounds, file.upper_bounds))
        if low <= row_id <= high:
            return file.file_path
    raise AssertionError(row_id)


def test_position_deletes_are_applied_and_their_files_go(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    position_delete(table, {holding(table, 0): [0, 9], holding(table, 10): [5]})
    position_delete(table, {holding(table, 0): [0, 3]})
    result = rewrite(table)
    assert ids(table) == sorted(set(range(30)) - {0, 3, 9, 15})
    assert delete_files(table) == []
    assert result.delete_files_removed == 2
    assert not work(table).found


def test_an_equality_delete_spares_rows_that_came_after_it(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    equality_delete(table, rows(3, 4), ["id"])
    append_files(table, 1, 2, start=4)
    rewrite(table)
    assert ids(table) == [0, 1, 2, 4, 5, *range(7, 20)]
    assert delete_files(table) == []


def test_null_equals_null_and_all_columns_must_match(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    schema = rows(0, 1).schema
    values = [(1, None, "x"), (2, None, None), (3, "a", "x"), (4, "a", None), (None, None, None), (6, "b", "y")]
    columns = [list(column) for column in zip(*values, strict=True)]
    table.append(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
    keys = pa.table({"id": [0, 0], "part": [None, "a"], "text": [None, "x"]}, schema=schema)
    equality_delete(table, keys, ["part", "text"])
    rewrite(table)
    assert table.scan().to_arrow()["id"].to_pylist() == [1, 4, 6]


def test_an_equality_delete_on_a_column_dropped_since_still_counts(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    equality_delete(table, rows(5, 1), ["text"])
    with table.update_schema() as update:
        update.rename_column("part", "region")
    with table.update_schema() as update:
        update.delete_column("text")
    table.append(pa.table({"id": [100], "region": ["z"]}, schema=table.schema().as_arrow()))
    rewrite(table)
    assert ids(table) == [0, 1, 2, 3, 4, *range(6, 20), 100]
    assert table.scan().to_arrow().column_names == ["id", "region"]


def test_a_dropped_column_that_deletes_compare_is_not_taken_for_the_one_that_has_its_name_now(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    equality_delete(table, rows(5, 1), ["text"])
    with table.update_schema() as update:
        update.delete_column("text")
    with table.update_schema() as update:
        update.add_column("text", StringType())
    append_files(table, 1, 2, start=100)
    equality_delete(table, rows(101, 1), ["text"])
    rewrite(table)
    assert ids(table) == [0, 1, 2, 3, 4, *range(6, 20), 100]
    assert [row for row in table.scan().to_arrow()["text"].to_pylist() if row is not None] == ["text of row 100"]
    assert delete_files(table) == []


def test_equality_and_position_deletes_on_one_file_are_not_counted_twice(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    position_delete(table, {holding(table, 0): [1, 2]})
    equality_delete(table, rows(2, 2), ["id"])
    rewrite(table)
    assert ids(table) == [0, *range(4, 10)]


def test_a_column_promoted_since_is_compared_by_value(tmp_path: Path) -> None:
    from pyiceberg.schema import Schema
    from pyiceberg.types import IntegerType, NestedField

    table = create_table(lake(tmp_path), schema=Schema(NestedField(1, "id", IntegerType(), required=False)))
    for start in (0, 10):
        table.append(pa.table({"id": pa.array(range(start, start + 10), pa.int32())}))
    equality_delete(table, pa.table({"id": pa.array([4, 14], pa.int32())}), ["id"])
    with table.update_schema() as update:
        update.update_column("id", LongType())
    table.append(pa.table({"id": pa.array([2**40], pa.int64())}))
    rewrite(table)
    assert ids(table) == [*(one for one in range(20) if one not in (4, 14)), 2**40]


def test_a_file_whose_rows_are_all_deleted_leaves_nothing(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    position_delete(table, {holding(table, 0): list(range(10))})
    result = rewrite(table)
    assert result.changed
    assert data_files(table) == []
    assert delete_files(table) == []
    assert not work(table).found


@pytest.mark.parametrize("file_scoped", [True, False])
def test_a_delete_file_that_other_data_needs_stays(tmp_path: Path, file_scoped: bool) -> None:
    table = small_files(lake(tmp_path), 4)
    position_delete(table, {holding(table, 0): [0], holding(table, 30): [0]}, file_scoped=file_scoped)
    result = rewrite(table, filter="id < 20")
    assert result.files_rewritten == 2
    assert len(delete_files(table)) == 1
    assert ids(table) == [*range(1, 30), *range(31, 40)]
    # What was rewritten carries an old sequence number, yet the delete file that stays is not held against it.
    assert not work(table, filter="id < 20").found


def test_a_global_equality_delete_reaches_beyond_the_partition_rewritten(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    append_files(table, 2)
    with table.update_spec() as update:
        update.add_identity("part")
    append_files(table, 2, start=100, parts=("a", "b"))
    equality_delete(table, rows(0, 200), ["id"], spec_id=0)
    rewrite(table, filter="part = 'b' and id >= 100")
    assert len(delete_files(table)) == 1
    rewrite(table)
    assert delete_files(table) == []
    assert table.scan().to_arrow().num_rows == 0


def test_dangling_deletes_go_when_asked_for(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    append_files(table, 1)
    table.delete("id >= 0")
    equality_delete(table, rows(0, 5), ["id"])
    append_files(table, 1)
    assert not work(table).found
    found = work(table, remove_dangling_deletes=True)
    assert found.found
    assert found.delete_files == 1
    assert rewrite(table, remove_dangling_deletes=True).delete_files_removed == 1
    assert delete_files(table) == []
    assert ids(table) == [*range(10)]
    assert not rewrite(table, remove_dangling_deletes=True).changed


def test_rewritten_files_carry_the_sequence_number_that_was_read(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    rewrite(table)
    assert [entry.sequence_number for entry in entries(table)] == [3]


def live(content: FileContent, sequence_number: int, **changes: object) -> LiveFile:
    values = {
        "path": f"{content.name}-{sequence_number}",
        "file_format": "PARQUET",
        "spec_id": 0,
        "partition": (),
        "record_count": 1,
        "file_size_bytes": 1,
    }
    return LiveFile(content=content, sequence_number=sequence_number, **(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "applies"),
    [
        (FileContent.POSITION_DELETES, {4: False, 5: True, 6: True}),
        (FileContent.EQUALITY_DELETES, {4: False, 5: False, 6: True}),
    ],
)
def test_sequence_numbers_decide(tmp_path: Path, content: FileContent, applies: dict[int, bool]) -> None:
    metadata = create_table(lake(tmp_path)).metadata
    data = live(FileContent.DATA, 5)
    for sequence_number, expected in applies.items():
        assert DeleteIndex(metadata, [live(content, sequence_number)]).touches(data) is expected
    elsewhere = live(content, 9, spec_id=1, partition=("a",))
    assert not DeleteIndex(metadata, [elsewhere]).touches(data)


deletes = st.builds(
    lambda number, kind, sequence_number, spec_id, part, named: live(
        kind,
        sequence_number,
        path=f"delete-{number}",
        spec_id=spec_id,
        partition=(part,) if spec_id == 0 else (),
        referenced_data_file=f"data-{named}" if named is not None and kind is FileContent.POSITION_DELETES else None,
    ),
    st.integers(),
    st.sampled_from([FileContent.POSITION_DELETES, FileContent.EQUALITY_DELETES]),
    st.integers(1, 6),
    st.sampled_from([0, 1]),
    st.sampled_from("ab"),
    st.none() | st.integers(0, 3),
)
data = st.builds(
    lambda number, sequence_number, part: live(
        FileContent.DATA, sequence_number, path=f"data-{number}", partition=(part,)
    ),
    st.integers(0, 3),
    st.integers(1, 6),
    st.sampled_from("ab"),
)


@pytest.mark.property
@given(st.lists(deletes, max_size=8), st.lists(data, max_size=5))
def test_the_deletes_of_files_together_are_those_of_each(found: list[LiveFile], files: list[LiveFile]) -> None:
    metadata = new_table_metadata(SCHEMA, BY_PART, UNSORTED_SORT_ORDER, "file:///table", {"format-version": "2"})
    unpartitioned = PartitionSpec(spec_id=1)
    index = DeleteIndex(
        metadata.model_copy(update={"partition_specs": [*metadata.partition_specs, unpartitioned]}), found
    )
    together = {delete.path for delete in index.of_all(files)}
    assert together == {delete.path for file in files for delete in index.of(file)}
    assert all(index.touches(file) is bool(index.of(file)) for file in files)
