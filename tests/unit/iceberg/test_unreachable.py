from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from harness.tables import append_files, data_files, lake, rows, small_files
from pyiceberg.table import Table

from airflow_provider_floe.iceberg.held_files import HeldFiles, hashes
from airflow_provider_floe.iceberg.reachability import FileKind, Found, ReachableFile
from airflow_provider_floe.iceberg.unreachable import unreachable_after


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
    first = {f.path for f in foretold.files}
    assert old in first
    after = table.catalog.load_table(table.name())
    after.maintenance.expire_snapshots().by_ids(list(gone)).commit()
    after = table.catalog.load_table(table.name())
    after.add_files([old])
    confirmed = foretold.confirmed(table, after)
    assert first - {f.path for f in confirmed.files} == {old}


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


def test_sizes_are_those_in_storage(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    table.overwrite(rows(50, 10))
    table.refresh()
    gone = {snapshot.snapshot_id for snapshot in table.metadata.snapshots[:-1]}
    files = unreachable_after(table, table, without=gone).files
    assert {FileKind.DATA, FileKind.MANIFEST, FileKind.MANIFEST_LIST} <= {file.kind for file in files}
    sizes = [Path(file.path.removeprefix("file://")).stat().st_size for file in files]
    assert [file.size_bytes for file in files] == sizes
    assert files.size_bytes == sum(sizes)


def test_a_file_is_held_once_however_it_is_spelled() -> None:
    held = HeldFiles()
    held.add(Found(FileKind.DATA, ["s3://b/d/1.parquet", "s3a://b/d/./1.parquet", "s3://b/d/2.parquet"], [1, 1, 2]))
    held.add(Found(FileKind.MANIFEST, ["s3://b//d/2.parquet", "s3://b/m.avro"], [2, None]))
    held.close()
    assert (len(held), held.size_bytes) == (3, 3)
    held.drop(hashes(["s3n://b/d/%31.parquet", "s3://b/d/3.parquet"]))
    for _ in range(2):
        assert list(held) == [
            ReachableFile("s3://b/d/2.parquet", FileKind.DATA, 2),
            ReachableFile("s3://b/m.avro", FileKind.MANIFEST, 0),
        ]
    assert (len(held), held.size_bytes) == (2, 2)


def test_no_files_are_held_as_well() -> None:
    held = HeldFiles()
    held.close()
    held.drop(hashes(["s3://b/1"]))
    assert (len(held), held.size_bytes, list(held)) == (0, 0, [])


def test_a_held_file_takes_a_few_bytes_of_memory() -> None:
    count, some = 200_000, 10_000
    tracemalloc.start()
    try:
        held = HeldFiles()
        for first in range(0, count, some):
            paths = [f"s3://bucket/warehouse/db/events/data/day=2026-01-01/{n:060}" for n in range(first, first + some)]
            held.add(Found(FileKind.DATA, paths, [1] * some))
        held.close()
        held.drop(hashes(paths))
        assert sum(file.size_bytes or 0 for file in held) == len(held) == held.size_bytes == count - some
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * count  # the paths alone take more than twice that as objects
