from __future__ import annotations

from pathlib import Path

import pytest
from harness.merge_on_read import position_delete
from harness.tables import append_files, create_table, data_files, lake, rows, small_files
from pyiceberg.table import Table

from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.iceberg import reachability
from airflow_provider_floe.iceberg.reachability import FileKind, ReferenceWalk, reachable, unreachable_after


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
    monkeypatch.setattr(reachability, "snapshot_manifests", lambda table, snapshot_id: [])
    with pytest.raises(UnsafeOperation, match="no data file"):
        reachable(table)


def test_promise_1_a_manifest_read_in_part_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_files(lake(tmp_path), 1)
    monkeypatch.setattr(reachability, "decode_files", lambda manifest, data: iter(()))
    with pytest.raises(UnsafeOperation, match="holds 0 live files, but its manifest list says 1"):
        reachable(table)


def test_a_table_without_rows_is_no_empty_category(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    assert {f.kind for f in reachable(table)} == {FileKind.METADATA}
    append_files(table, 1)
    table.delete("id >= 0")
    assert len(reachable(table.refresh())) > 2


def paths(table: Table, snapshots: set[int]) -> set[str]:
    """What the snapshots reference, by pyiceberg's own readers."""
    found = set()
    for snapshot in table.metadata.snapshots:
        if snapshot.snapshot_id in snapshots:
            found.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(table.io):
                found.add(manifest.manifest_path)
                found |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    return found


@pytest.mark.parametrize("kept", [{5}, {2, 4, 5}, {1, 2}, {1, 2, 3, 4, 5}])
def test_promise_11_the_difference_is_exact(tmp_path: Path, kept: set[int]) -> None:
    table = small_files(lake(tmp_path), 2)
    table.overwrite(rows(50, 10))
    append_files(table, 1, start=70)
    table.refresh()
    ids = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
    assert len(ids) == 5
    stays = {ids[number - 1] for number in kept}
    gone = set(ids) - stays
    found = unreachable_after(table, table, without=gone)
    assert {f.path for f in found.files} == paths(table, gone) - paths(table, stays)


def test_what_was_foretold_is_held_against_the_table_as_it_is(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    old = data_files(table)[0].file_path
    table.overwrite(rows(50, 10))
    table.refresh()
    gone = {snapshot.snapshot_id for snapshot in table.metadata.snapshots[:-1]}
    foretold = unreachable_after(table, table, without=gone)
    assert old in {f.path for f in foretold.files}
    after = table.catalog.load_table(table.name())
    after.maintenance.expire_snapshots().by_ids(list(gone)).commit()
    after = table.catalog.load_table(table.name())
    after.add_files([old])
    confirmed = foretold.confirmed(table, after)
    assert {f.path for f in foretold.files} - {f.path for f in confirmed.files} == {old}


def test_a_concurrent_expiry_makes_all_be_computed_anew(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    for start in (50, 60, 70):
        table.overwrite(rows(start, 10))
    table.refresh()
    ids = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
    foretold = unreachable_after(table, table, without=ids[:1])
    after = table.catalog.load_table(table.name())
    after.maintenance.expire_snapshots().by_ids(ids[:3]).commit()
    after = table.catalog.load_table(table.name())
    confirmed = foretold.confirmed(table, after)
    everything = {f.path for f in unreachable_after(table, after).files}
    assert {f.path for f in confirmed.files} == everything
    assert len(everything) > len(foretold.files)
