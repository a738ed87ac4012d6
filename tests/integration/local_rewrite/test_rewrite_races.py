"""Commits of others while a rewrite runs: no row is lost, none comes back, and appends never get in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import (
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    delete_files,
    lake,
    missing_files,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from pyiceberg.table import Table
from rewriting import ids, rewrite

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY
from airflow_provider_floe.errors import CommitConflict


def interrupted(table: Table, action: Callable[[Table], object]) -> FakeContext:
    """A context in which another writer acts right before our first commit."""

    def act(attempt: int) -> None:
        if attempt == 1:
            action(table.catalog.load_table(table.name()))

    return context_for(table, on_committing=act)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return small_files(lake(tmp_path), 3)


def test_an_append_is_kept_and_does_not_conflict(table: Table) -> None:
    context = interrupted(table, lambda other: other.append(rows(1000, 5)))
    assert rewrite(table, context).changed
    assert ids(table) == [*range(30), *range(1000, 1005)]
    assert len(context.commits_begun) == 2
    assert len(data_files(table)) == 2
    assert missing_files(table) == []


@pytest.mark.parametrize("then_append", [False, True], ids=["delete", "delete, then append"])
@pytest.mark.parametrize("bounds", [True, False], ids=["with path bounds", "without"])
def test_a_position_delete_is_not_lost(table: Table, then_append: bool, bounds: bool) -> None:
    victim = next(file for file in data_files(table) if file.lower_bounds[1][0] == 0).file_path
    before = stored_files(table)

    def delete(other: Table) -> None:
        position_delete(other, {victim: [0, 1, 2]}, bounds=bounds)
        if then_append:
            other.append(rows(1000, 1))

    context = interrupted(table, delete)
    with pytest.raises(CommitConflict, match="new deletes"):
        rewrite(table, context)
    expected = [*range(3, 30), *([1000] if then_append else [])]
    assert ids(table) == expected
    ours = {path for path in stored_files(table) - before if path.name.startswith("floe-")}
    assert ours == set()

    assert rewrite(table, context_for(table)).changed
    assert ids(table) == expected
    assert delete_files(table) == []


def test_a_position_delete_on_another_file_is_no_conflict(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 4)
    victim = next(file for file in data_files(table) if file.lower_bounds[1][0] == 30).file_path
    context = interrupted(table, lambda other: position_delete(other, {victim: [0]}, bounds=False))
    assert rewrite(table, context, filter="id < 30").files_rewritten == 3
    assert ids(table) == [*range(30), *range(31, 40)]


@pytest.mark.parametrize("then_append", [False, True], ids=["delete", "delete, then append"])
def test_an_equality_delete_still_applies_to_the_rewritten_file(table: Table, then_append: bool) -> None:
    def delete(other: Table) -> None:
        equality_delete(other, rows(0, 3), ["id"])
        if then_append:
            other.append(rows(1, 1))

    assert rewrite(table, interrupted(table, delete)).changed
    # pyiceberg reads no equality deletes: the next rewrite applies them, and its reading is checked elsewhere.
    assert rewrite(table, context_for(table)).changed
    assert ids(table) == ([1, *range(3, 30)] if then_append else [*range(3, 30)])


def test_without_the_starting_sequence_number_an_equality_delete_is_a_conflict(table: Table) -> None:
    context = interrupted(table, lambda other: equality_delete(other, rows(0, 3), ["id"]))
    with pytest.raises(CommitConflict):
        rewrite(table, context, use_starting_sequence_number=False)
    assert rewrite(table, context_for(table)).changed
    assert ids(table) == [*range(3, 30)]


def test_a_concurrent_rewrite_of_the_same_files_is_a_conflict(table: Table) -> None:
    context = interrupted(table, lambda other: rewrite(other, context_for(other)))
    with pytest.raises(CommitConflict, match="no longer live"):
        rewrite(table, context)
    assert ids(table) == [*range(30)]
    assert len(data_files(table)) == 1


def test_a_conflict_in_one_partition_leaves_the_others_rewritten(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=("a", "b"))
    victim = next(file for file in data_files(table) if file.partition[0] == "b").file_path
    context = interrupted(table, lambda other: position_delete(other, {victim: [0]}))
    before = len(rows_digest(table))
    result = rewrite(table, context)
    assert result.files_rewritten == 3
    assert "new deletes" in result.message
    table.refresh()
    assert sorted(file.partition[0] for file in data_files(table)) == ["a", "b", "b", "b"]
    assert len(rows_digest(table)) == before - 1
    assert missing_files(table) == []


def test_a_rollback_of_what_was_read_is_a_conflict(table: Table) -> None:
    first = table.metadata.snapshots[0].snapshot_id

    def roll_back(other: Table) -> None:
        other.manage_snapshots().set_current_snapshot(snapshot_id=first).commit()

    with pytest.raises(CommitConflict, match="no longer in the history"):
        rewrite(table, interrupted(table, roll_back))
    assert ids(table) == [*range(10)]


def test_other_branches_and_tags_keep_their_snapshots(table: Table) -> None:
    tagged, head = table.metadata.snapshots[0].snapshot_id, table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_tag(tagged, "first").create_branch(head, "audit").commit()
    assert rewrite(table.refresh(), context_for(table)).changed
    refs = table.refresh().metadata.refs
    assert (refs["first"].snapshot_id, refs["audit"].snapshot_id) == (tagged, head)
    assert table.scan(snapshot_id=tagged).to_arrow().num_rows == 10


def test_the_snapshot_names_the_operation_and_counts_right(table: Table) -> None:
    position_delete(table, {data_files(table)[0].file_path: [0]})
    assert rewrite(table, context_for(table)).changed
    snapshot = table.refresh().current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "replace"
    said = snapshot.summary.additional_properties
    files = data_files(table)
    assert said[OPERATION_ID_PROPERTY] == "op-1"
    assert int(said["total-records"]) == sum(file.record_count for file in files) == 29
    assert int(said["total-data-files"]) == len(files)
    assert int(said["total-files-size"]) == sum(file.file_size_in_bytes for file in files)
    assert (said["total-delete-files"], said["removed-delete-files"], said["total-position-deletes"]) == ("0", "1", "0")


def test_five_appends_in_a_row_are_outlasted(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, properties={"commit.retry.num-retries": "6"})

    def act(attempt: int) -> None:
        if attempt <= 5:
            append_files(table.catalog.load_table(table.name()), 1, start=100 * attempt)

    context = context_for(table, on_committing=act)
    assert rewrite(table, context).changed
    assert len(ids(table)) == 80


def test_a_catalog_that_always_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, properties={"commit.retry.num-retries": "2"})

    def act(attempt: int) -> None:
        append_files(table.catalog.load_table(table.name()), 1, start=100 * attempt)

    context = context_for(table, on_committing=act)
    with pytest.raises(CommitConflict, match="3 commits in a row"):
        rewrite(table, context)
    assert len(ids(table)) == 60
    assert [path for path in context.journal.outputs if Path(path.removeprefix("file://")).exists()] == []


def test_an_empty_table_and_a_table_without_rows_have_nothing_to_rewrite(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    assert not rewrite(table, context_for(table)).changed
    table.append(pa.Table.from_batches([], schema=rows(0, 1).schema))
    assert not rewrite(table, context_for(table)).changed


def test_partial_progress_goes_on_after_a_conflict(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    victim = data_files(table)[0].file_path  # of the group that is committed first
    context = interrupted(table, lambda other: position_delete(other, {victim: [0]}))
    result = rewrite(table, context, partial_progress_enabled=True)
    assert result.files_rewritten == 4
    assert len(result.details["conflicts"]) == 1
    assert table.scan().to_arrow().num_rows == 59


def test_partial_progress_gives_up_after_as_many_conflicts_as_allowed(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    victim = data_files(table)[0].file_path
    context = interrupted(table, lambda other: position_delete(other, {victim: [0]}))
    with pytest.raises(CommitConflict):
        rewrite(table, context, partial_progress_enabled=True, partial_progress_max_failed_commits=0)
    assert table.scan().to_arrow().num_rows == 59
    assert missing_files(table) == []
