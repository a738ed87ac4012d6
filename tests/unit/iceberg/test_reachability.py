from __future__ import annotations

from pathlib import Path

import pytest
from harness.merge_on_read import position_delete
from harness.tables import append_files, create_table, data_files, lake, local_path, small_files

from airflow_provider_floe.errors import TableUnreadable, UnsafeOperation
from airflow_provider_floe.iceberg import reachability
from airflow_provider_floe.iceberg.avro import Projection, read_blocks, read_header
from airflow_provider_floe.iceberg.reachability import FileKind, ReferenceWalk, reachable, unreferenced


def test_promise_1_every_kind_is_referenced(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    position_delete(table, {data_files(table)[0].file_path: [1]})
    table.manage_snapshots().create_tag(table.metadata.snapshots[0].snapshot_id, "t").commit()
    found = reachable(table)
    kinds = {kind: {f.path for f in found if f.kind is kind} for kind in FileKind}
    assert len(kinds[FileKind.DATA]) == 3
    assert len(kinds[FileKind.DELETES]) == 1
    assert kinds[FileKind.MANIFEST_LIST] == {s.manifest_list for s in table.metadata.snapshots}
    assert kinds[FileKind.MANIFEST] == set(table.inspect.all_manifests()["path"].to_pylist())
    logged = {entry.metadata_file for entry in table.metadata.metadata_log}
    assert kinds[FileKind.METADATA] == {table.metadata_location, *logged}
    spelled = next(iter(kinds[FileKind.DATA])).replace("file://", "file:").replace("/data/", "//data/./")
    assert spelled in found
    assert f"{table.location()}/data/other.parquet" not in found


def test_what_is_not_referenced_is_told_from_what_is_however_it_is_spelled(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    spelled = [one.path.replace("file://", "file:").replace("/data/", "//data/./") for one in reachable(table)]
    other = f"{table.location()}/data/other.parquet"
    assert unreferenced(table, [*spelled, other]) == [other]


def test_a_file_that_a_snapshot_deleted_is_referenced_only_by_earlier_ones(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    before = {file.file_path for file in data_files(table)}
    table.delete("id >= 10")
    table.refresh()
    removed = before - {file.file_path for file in data_files(table)}
    assert len(removed) == 1
    last = table.metadata.current_snapshot_id
    assert last is not None
    assert removed.isdisjoint(file.path for file in ReferenceWalk().new_files(table, {last}))
    assert removed <= {file.path for file in reachable(table)}


def test_a_walk_gives_only_what_is_new(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    walk = ReferenceWalk()
    first = {f.path for f in walk.new_files(table)}
    assert list(walk.new_files(table)) == []
    append_files(table, 1, start=500)
    new = [f for f in walk.new_files(table) if f.kind is not FileKind.METADATA]
    assert sorted(f.kind for f in new) == [FileKind.DATA, FileKind.MANIFEST, FileKind.MANIFEST_LIST]
    assert first.isdisjoint(f.path for f in new)


def test_a_catalog_that_does_not_tell_the_metadata_location_is_walked_all_the_same(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    table.metadata_location = None  # type: ignore[assignment]
    assert {FileKind.DATA, FileKind.MANIFEST} <= {f.kind for f in ReferenceWalk().new_files(table)}


def test_promise_1_an_empty_category_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_files(lake(tmp_path), 1)
    monkeypatch.setattr(reachability, "listed_manifests", lambda data, path: [])
    with pytest.raises(UnsafeOperation, match="no data file"):
        reachable(table)


def test_promise_1_a_manifest_read_in_part_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_files(lake(tmp_path), 1)
    monkeypatch.setattr(reachability, "files_of", lambda manifest, data: iter(()))
    with pytest.raises(UnsafeOperation, match="holds 0 live files, but its manifest list says 1"):
        reachable(table)


def test_a_manifest_cut_off_between_two_blocks_is_an_error(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    path = table.inspect.manifests()["path"].to_pylist()[0]
    data = local_path(path).read_bytes()
    first = next(read_blocks(data, Projection((0,), frozenset((0,))), path))
    assert len(first.rows) == 1
    local_path(path).write_bytes(data[: read_header(data, path).size])
    with pytest.raises(TableUnreadable, match=f"manifest {path} is cut off"):
        reachable(table)


@pytest.mark.parametrize("left", [0, 3, 200, -1])
def test_a_damaged_manifest_list_is_an_error_that_names_it(tmp_path: Path, left: int) -> None:
    table = small_files(lake(tmp_path), 2)
    lists = table.metadata.snapshots[0].manifest_list
    local_path(lists).write_bytes(local_path(lists).read_bytes()[:left])
    with pytest.raises(TableUnreadable, match=f"manifest list {lists} "):
        reachable(table)


def test_a_manifest_list_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    lists = table.metadata.snapshots[0].manifest_list
    local_path(lists).unlink()
    with pytest.raises(TableUnreadable, match=f"manifest list {lists} cannot be read"):
        reachable(table)


def test_a_table_without_rows_is_no_empty_category(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    assert {f.kind for f in reachable(table)} == {FileKind.METADATA}
    append_files(table, 1)
    table.delete("id >= 0")
    assert len(reachable(table.refresh())) > 2
