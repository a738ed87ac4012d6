"""Small position deletes become few, dangling ones go, data files stay: no row is lost, and none comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness import version_3
from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import oracle_digest
from harness.rest_server import rest_server
from harness.tables import (
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    delete_files,
    lake,
    local_path,
    missing_files,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from harness.version_3 import add_vectors, append, upgrade
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import Table
from rewriting import ids, rewrite, rewrite_deletes, work_on_deletes

from airflow_provider_floe.engines.local import position_merge
from airflow_provider_floe.engines.local.live_index import ReachedIndex
from airflow_provider_floe.errors import CommitConflict, TableUnreadable, VerificationFailed
from airflow_provider_floe.iceberg.files import FileContent
from airflow_provider_floe.iceberg.manifests import snapshot_manifests


def paths(table: Table) -> list[str]:
    """Data files, in the order in which they were appended."""
    return [file.file_path for file in sorted(data_files(table), key=lambda file: file.lower_bounds[1])]


BY_PARTITION = {"write.delete.granularity": "partition"}


def deleted_from(tmp_path: Path, commits: int = 6, properties: dict[str, str] = BY_PARTITION, **how: bool) -> Table:
    """Three data files of ten rows; commit n deletes row n of each."""
    table = small_files(lake(tmp_path), 3, properties=properties)
    for number in range(commits):
        position_delete(table, {path: [number] for path in paths(table)}, **how)
    return table


def with_vectors(tmp_path: Path, files: int = 6) -> Table:
    """Data files of ten rows, each with a deletion vector in a Puffin file of its own, that removes rows 1 and 2."""
    table = upgrade(create_table(lake(tmp_path)))
    for number in range(files):
        append(table, rows(10 * number, 10))
    for file in version_3.live(table):
        add_vectors(table, {file.path: [1, 2]})
    return table


@pytest.mark.parametrize("how", [{}, {"bounds": False}, {"file_scoped": True}], ids=["partition", "no bounds", "file"])
def test_many_become_one(tmp_path: Path, how: dict[str, bool]) -> None:
    table = deleted_from(tmp_path, **how)
    data, before, told = data_files(table), rows_digest(table), oracle_digest(table.metadata_location)
    found = work_on_deletes(table)
    assert found.found
    result = rewrite_deletes(table)

    assert result.changed
    assert (result.files_rewritten, result.files_added) == (found.files_in, 1)
    assert result.delete_files_removed == found.files_in - 1
    assert sorted(file.file_path for file in data_files(table)) == sorted(file.file_path for file in data)
    assert [file.record_count for file in delete_files(table)] == [18]
    assert rows_digest(table) == before
    assert oracle_digest(table.metadata_location) == told
    assert not work_on_deletes(table).found
    assert not rewrite_deletes(table).changed
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "replace"
    said = snapshot.summary.additional_properties
    assert (said["total-delete-files"], said["total-position-deletes"]) == ("1", "18")
    assert (said["added-position-delete-files"], said["removed-position-deletes"]) == ("1", "18")
    assert said["total-data-files"] == "3"
    assert missing_files(table) == []


def test_each_data_file_gets_a_delete_file_of_its_own_where_the_table_asks_for_that(tmp_path: Path) -> None:
    table = deleted_from(tmp_path, 8, {})
    before, told = rows_digest(table), oracle_digest(table.metadata_location)
    result = rewrite_deletes(table)
    assert (result.files_rewritten, result.files_added) == (8, 3)
    found = delete_files(table)
    assert [file.record_count for file in found] == [8, 8, 8]
    assert all(file.lower_bounds == file.upper_bounds for file in found)
    assert rows_digest(table) == before
    assert oracle_digest(table.metadata_location) == told
    assert not work_on_deletes(table).found


def test_partitions_stay_apart_and_few_are_left_alone(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1, parts=("a", "b"), properties=BY_PARTITION)
    first, second = (file.file_path for file in data_files(table))
    for number in range(5):
        position_delete(table, {first: [number]})
    position_delete(table, {second: [0]})
    before = rows_digest(table)
    assert rewrite_deletes(table).files_rewritten == 5
    assert sorted(file.record_count for file in delete_files(table)) == [1, 5]
    assert rows_digest(table) == before


def test_files_of_the_target_size_are_left_alone_and_large_output_is_split(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    table.append(rows(0, 20_000))
    path = paths(table)[0]
    for number in range(6):
        position_delete(table, {path: range(number, 20_000, 7)})
    before = rows_digest(table)
    size = delete_files(table)[0].file_size_in_bytes
    assert not rewrite_deletes(table, target_file_size_bytes=size // 2).changed
    assert rewrite_deletes(table, target_file_size_bytes=4 * size).changed
    assert not work_on_deletes(table, target_file_size_bytes=4 * size).found
    assert rows_digest(table) == before


def test_what_applies_to_nothing_is_dropped_and_what_it_says_is_not_carried_on(tmp_path: Path) -> None:
    table = deleted_from(tmp_path)
    assert rewrite(table, filter="id < 10").changed
    table.append(rows(100, 10))
    before = rows_digest(table)
    assert rewrite_deletes(table).changed
    assert [file.record_count for file in delete_files(table)] == [12]
    assert rows_digest(table) == before

    alone = small_files(lake(tmp_path / "other"), 2)
    position_delete(alone, {data_files(alone)[0].file_path: [0]}, file_scoped=True)
    rewrite(alone)
    position_delete(alone, {data_files(alone)[0].file_path: [0]}, file_scoped=True)
    alone.overwrite(rows(50, 3))
    assert work_on_deletes(alone).found
    result = rewrite_deletes(alone)
    assert "dangling" in result.message
    assert delete_files(alone) == []
    assert ids(alone) == [50, 51, 52]
    assert not rewrite_deletes(alone).changed


def interrupted(table: Table, action: Callable[[Table], object]) -> FakeContext:
    def act(attempt: int) -> None:
        if attempt == 1:
            action(table.catalog.load_table(table.name()))

    return context_for(table, on_committing=act)


def test_appends_and_new_deletes_do_not_conflict(tmp_path: Path) -> None:
    table = deleted_from(tmp_path)

    def both(other: Table) -> None:
        append_files(other, 1, start=1000)
        position_delete(other, {paths(other)[1]: [9]})

    assert rewrite_deletes(table, interrupted(table, both)).changed
    assert ids(table) == [6, 7, 8, 9, 16, 17, 18, *range(26, 30), *range(1000, 1010)]
    assert len(delete_files(table)) == 2


def test_a_rewrite_of_the_data_meanwhile_is_no_loss(tmp_path: Path) -> None:
    table = deleted_from(tmp_path)
    left = stored_files(table)
    with pytest.raises(CommitConflict, match="replaced meanwhile"):
        rewrite_deletes(table, interrupted(table, rewrite))
    assert ids(table) == [6, 7, 8, 9, *range(16, 20), *range(26, 30)]
    assert [path for path in stored_files(table) - left if "floe-deletes" in path.name] == []
    assert delete_files(table) == []


def test_the_deletes_still_apply_to_what_is_older_only(tmp_path: Path) -> None:
    """A data file that is written back under the same name can not be, but one may be rewritten, and appended to."""
    table = deleted_from(tmp_path)
    equality_delete(table, rows(7, 1), ["id"])
    assert rewrite_deletes(table).changed
    table.append(rows(0, 3))
    before = oracle_digest(table.metadata_location)
    assert rewrite(table).changed
    assert oracle_digest(table.metadata_location) == before
    assert delete_files(table) == []
    assert ids(table) == [0, 1, 2, 6, 8, 9, *range(16, 20), *range(26, 30)]


# --- deletion vectors -------------------------------------------------------------------------------------------------


def test_vectors_move_into_one_file(tmp_path: Path) -> None:
    table = with_vectors(tmp_path)
    before, told = version_3.rows(table), oracle_digest(table.metadata_location)
    assert work_on_deletes(table).found
    result = rewrite_deletes(table)
    assert (result.files_rewritten, result.files_added, result.delete_files_removed) == (6, 6, 0)
    assert "6 files" in result.message
    assert len({file.path for file in version_3.live(table) if file.content}) == 1
    assert version_3.rows(table) == before
    assert oracle_digest(table.metadata_location) == told
    assert not work_on_deletes(table).found
    assert not rewrite_deletes(table).changed

    assert rewrite(table).changed
    assert version_3.rows(table) == before
    assert [file for file in version_3.live(table) if file.content] == []


def test_one_vector_of_a_shared_file_goes_and_the_others_stay(tmp_path: Path) -> None:
    table = with_vectors(tmp_path)
    rewrite_deletes(table)
    before = version_3.rows(table)
    assert rewrite(table, filter="id < 20").files_rewritten == 2
    vectors = [file for file in version_3.live(table) if file.content]
    assert len(vectors) == 4
    assert len({file.path for file in vectors}) == 1
    assert version_3.rows(table) == before


def test_position_deletes_of_an_upgraded_table_become_vectors(tmp_path: Path) -> None:
    table = upgrade(deleted_from(tmp_path))
    told = oracle_digest(table.metadata_location)
    first = paths(table)[0]
    add_vectors(table, {first: [0, 1, 2, 3, 4, 5, 9]})  # as the format demands, it holds what older deletes say
    assert oracle_digest(table.metadata_location).rows == told.rows - 1
    told = oracle_digest(table.metadata_location)
    assert rewrite_deletes(table).changed
    kinds = sorted((file.file_format, file.records) for file in version_3.live(table) if file.content)
    assert kinds == [("puffin", 6), ("puffin", 6), ("puffin", 7)]
    assert oracle_digest(table.metadata_location) == told
    assert sorted(row.values[0] for row in version_3.rows(table)) == [6, 7, 8, *range(16, 20), *range(26, 30)]
    assert not work_on_deletes(table).found


def test_deletes_that_are_not_merged_are_still_part_of_a_vector(tmp_path: Path) -> None:
    """A vector hides all position deletes of its data file, those in large files too."""
    table = create_table(lake(tmp_path))
    table.append(rows(0, 20_000))
    path = paths(table)[0]
    position_delete(table, {path: range(10_000, 20_000)})
    large = delete_files(table)[0].file_size_in_bytes
    for number in range(6):
        position_delete(table, {path: [number]})
    upgrade(table)
    assert rewrite_deletes(table, target_file_size_bytes=large).changed
    vector, large_file = sorted(
        (file for file in version_3.live(table) if file.content), key=lambda one: -len(one.path)
    )
    assert {vector.records, large_file.records} == {10_006, 10_000}
    assert oracle_digest(table.metadata_location).rows == 9_994


def test_a_new_vector_meanwhile_is_a_conflict_and_the_rest_goes_on(tmp_path: Path) -> None:
    table = with_vectors(tmp_path)
    path = next(file.path for file in version_3.live(table) if file.content == 0)
    before = version_3.rows(table)
    with pytest.raises(CommitConflict, match="replaced meanwhile"):
        rewrite_deletes(table, interrupted(table, lambda other: add_vectors(other, {path: [9]})))
    assert len(version_3.rows(table)) == len(before) - 1
    assert rewrite_deletes(table).changed
    assert len(version_3.rows(table)) == len(before) - 1


def test_a_position_delete_file_and_a_first_vector_meanwhile(tmp_path: Path) -> None:
    table = upgrade(deleted_from(tmp_path))
    path = paths(table)[0]
    with pytest.raises(CommitConflict, match="replaced meanwhile"):
        rewrite_deletes(table, interrupted(table, lambda other: add_vectors(other, {path: [0, 1, 2, 3, 4, 5, 9]})))
    assert oracle_digest(table.metadata_location).rows == 11


def test_a_damaged_vector_stops_the_run(tmp_path: Path) -> None:
    table = with_vectors(tmp_path)
    file = next(file for file in version_3.live(table) if file.content)
    stored = local_path(file.path)
    content = bytearray(stored.read_bytes())
    assert file.offset is not None
    content[file.offset + 20] ^= 0xFF
    stored.write_bytes(content)
    for run in (rewrite_deletes, rewrite):
        with pytest.raises(TableUnreadable, match="damaged"):
            run(table)


def test_a_vector_whose_data_file_is_gone_is_dropped(tmp_path: Path) -> None:
    table = with_vectors(tmp_path, 2)
    first = next(file.path for file in version_3.live(table) if file.content == 0)
    version_3.commit(table, removed=[first])
    before = version_3.rows(table)
    assert work_on_deletes(table).found
    assert "1 dangling delete file went" in rewrite_deletes(table).message
    assert [file.content for file in version_3.live(table)].count(1) == 1
    assert version_3.rows(table) == before
    assert not work_on_deletes(table).found


def test_a_data_file_with_two_vectors_is_not_touched(tmp_path: Path) -> None:
    table = with_vectors(tmp_path, 1)
    version_3.commit(table, added=[entry.data_file for entry in version_3.entries(table) if entry.data_file.content])
    for run in (rewrite_deletes, rewrite):
        with pytest.raises(TableUnreadable, match="two deletion vectors"):
            run(table)


def test_through_a_rest_catalog(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        server.catalog.create_namespace("db")
        upgrade(create_table(server.catalog))
        table = RestCatalog("lake", uri=server.uri).load_table("db.events")
        for number in range(5):
            append(table, rows(10 * number, 10))
        for file in version_3.live(table):
            add_vectors(table, {file.path: [1, 2]})
        before = version_3.rows(table)
        assert rewrite_deletes(table, interrupted(table, lambda other: append(other, rows(1000, 5)))).changed
        assert [row for row in version_3.rows(table) if row.values[0] < 1000] == before


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("at", ["on_checkpoint", "on_committing"])
def test_a_killed_run_leaves_the_table_as_it_was(tmp_path: Path, version: int, at: str) -> None:
    table = deleted_from(tmp_path) if version == 2 else with_vectors(tmp_path)
    told, head = oracle_digest(table.metadata_location), table.metadata.current_snapshot_id

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    context = context_for(table, **{at: kill})
    with pytest.raises(Killed):
        rewrite_deletes(table, context)
    assert table.refresh().metadata.current_snapshot_id == head
    written = {path for path in stored_files(table) if "floe-deletes" in path.name}
    assert {str(path) for path in written} <= {path.removeprefix("file://") for path in context.journal.outputs}
    assert rewrite_deletes(table).changed
    assert oracle_digest(table.metadata_location) == told


def test_a_commit_whose_answer_is_lost_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = deleted_from(tmp_path)
    before = rows_digest(table)
    real = type(table.catalog).commit_table

    def answer_lost(*arguments: Any) -> Any:
        real(*arguments)
        raise OSError("the line went dead")

    monkeypatch.setattr(type(table.catalog), "commit_table", answer_lost)
    assert rewrite_deletes(table).changed
    monkeypatch.undo()
    assert rows_digest(table) == before
    assert missing_files(table) == []


def test_what_comes_back_otherwise_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = deleted_from(tmp_path)
    left = stored_files(table)
    real = position_merge.pq.ParquetWriter.write_batch

    def one_less(self: Any, batch: pa.RecordBatch, **how: Any) -> None:
        real(self, batch.slice(1), **how)

    monkeypatch.setattr(position_merge.pq.ParquetWriter, "write_batch", one_less)
    with pytest.raises(VerificationFailed, match="17 deletes were written, but 6 files hold 18"):
        rewrite_deletes(table)
    assert stored_files(table) == left


def test_data_files_that_no_position_delete_may_reach_are_only_counted(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    files = data_files(table)
    for _ in range(2):
        position_delete(table, {files[0].file_path: [0]})
    index = ReachedIndex(table.io)
    found = index.files(table.metadata, snapshot_manifests(table))
    assert [file.path for file in found if file.content is FileContent.DATA] == [files[0].file_path]
    assert len(found) == 1 + len(delete_files(table))
    assert index.totals(snapshot_manifests(table)).files == len(files)
    position_delete(table, {files[1].file_path: [0]})
    found = index.files(table.metadata, snapshot_manifests(table))
    assert {file.path for file in found if file.content is FileContent.DATA} == {one.file_path for one in files[:2]}
    assert rewrite_deletes(table, min_input_files=2).changed
    summary = table.metadata.current_snapshot().summary
    assert summary["total-data-files"] == str(len(files))
    assert summary["total-records"] == str(sum(one.record_count for one in files))
