from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from harness.merge_on_read import position_delete
from harness.tables import (
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    lake,
    local_path,
    missing_files,
    request_for,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local import deletion, orphans
from airflow_provider_floe.errors import RetentionRefused, UnsafeOperation
from airflow_provider_floe.iceberg import listing, orphan_search
from airflow_provider_floe.iceberg.listing import ListedFile
from airflow_provider_floe.iceberg.orphan_search import orphan_work
from airflow_provider_floe.policies.model import OrphanCleanup
from airflow_provider_floe.tables import Operation

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def run(table: Table, context: FakeContext | None = None, **settings: Any) -> OperationResult:
    request = request_for(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(**settings))
    return orphans.run(request, context or context_for(table, time=NOW), 256 * 1024**2)


def stray(table: Table, name: str, age: timedelta = 10 * DAY) -> Path:
    """A file below the table's location that nothing references."""
    path = local_path(table.location()) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"stray")
    os.utime(path, (time.time(), (NOW - age).timestamp()))
    return path


def aged(table: Table, age: timedelta = 10 * DAY) -> Table:
    """Every file of the table made old, so that only references protect it."""
    for path in stored_files(table):
        os.utime(path, (time.time(), (NOW - age).timestamp()))
    return table


def rich(tmp_path: Path) -> Table:
    """A partitioned table with deletes, a branch, a tag, and a staged snapshot, all files old."""
    table = small_files(lake(tmp_path), 2, parts=("a", "b c/d%20é"))
    position_delete(table, {data_files(table)[0].file_path: [1]})
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().create_tag(first, "audit").create_branch(first, "dev").commit()
    table.append(rows(800, 5), branch="dev")
    table.append(rows(900, 5), snapshot_properties={"wap.id": "w1"})
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[-3].snapshot_id).commit()
    return aged(table)


def test_promise_1_nothing_referenced_is_removed(tmp_path: Path) -> None:
    table = rich(tmp_path)
    digest, stored = rows_digest(table), stored_files(table)
    gone = {stray(table, "data/part=a/lost.parquet"), stray(table, "metadata/lost-m0.avro"), stray(table, "x/%2E/y")}
    result = run(table)
    assert stored_files(table) == stored
    assert result.files_deleted == len(gone) == 3
    assert result.bytes_deleted == 15
    assert missing_files(table) == []
    assert rows_digest(table) == digest
    assert not run(table).changed


def test_promise_2_a_file_committed_after_the_listing_is_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow writer commits a file that is old and was an orphan when storage was listed."""
    table = small_files(lake(tmp_path), 2)
    monkeypatch.setattr(deletion, "_BATCH", 1)
    lost = stray(table, "data/a-lost.parquet")
    late = stray(table, "data/late.parquet")
    pq.write_table(rows(700, 7), late)
    os.utime(late, (time.time(), (NOW - 10 * DAY).timestamp()))
    context = context_for(table, time=NOW)

    def commit() -> None:
        if context.journal.deleted and late.exists() and "late" not in str(table.metadata.properties):
            other = table.catalog.load_table(table.name())
            if len(other.metadata.snapshots) == 2:
                other.add_files([f"file://{late}"])

    context.on_checkpoint = commit
    result = run(table, context)
    assert not lost.exists()
    assert late.exists()
    assert result.details["spared"] == 1
    table.refresh()
    assert len(rows_digest(table)) == 27
    assert [Path(d.path).name for d in context.journal.deletions] == ["a-lost.parquet"]


def test_promise_2_an_append_during_the_listing_is_no_partial_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = aged(small_files(lake(tmp_path), 2))
    lost = stray(table, "data/lost.parquet")

    def listed_early(io: Any, prefix: str) -> Any:
        found = list(listing.list_files(io, prefix))
        if not prefix.endswith("_floe_quarantine/"):
            append_files(table.catalog.load_table(table.name()), 1, start=500)
        return iter(found)

    monkeypatch.setattr(orphan_search, "list_files", listed_early)
    run(table)
    assert not lost.exists()
    table.refresh()
    assert len(rows_digest(table)) == 30
    assert missing_files(table) == []


def _listing(monkeypatch: pytest.MonkeyPatch, change: Callable[[ListedFile], ListedFile | None]) -> None:
    def changed(io: Any, prefix: str) -> Any:
        for batch in listing.list_files(io, prefix):
            if kept := [file for file in map(change, batch) if file is not None]:
                yield kept

    monkeypatch.setattr(orphan_search, "list_files", changed)


def test_promise_3_a_partial_listing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = aged(small_files(lake(tmp_path), 3))
    lost = stray(table, "data/lost.parquet")
    hidden = data_files(table)[1].file_path
    _listing(monkeypatch, lambda file: None if file.path == hidden else file)
    with pytest.raises(UnsafeOperation, match=r"partial: 1 files .*" + Path(hidden).name):
        run(table)
    assert lost.exists()


def test_promise_3_an_empty_listing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    _listing(monkeypatch, lambda file: None)
    with pytest.raises(UnsafeOperation, match="partial"):
        run(table)


def test_promise_3_unknown_age_means_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    lost = stray(table, "data/lost.parquet")
    _listing(monkeypatch, lambda file: file._replace(modified=None))
    result = run(table)
    assert lost.exists()
    assert result.details["young"] == 1


def test_promise_4_metadata_files_and_version_hint_stay(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), properties={"write.metadata.previous-versions-max": "1"})
    aged(append_files(table, 3))
    hint = stray(table, "metadata/version-hint.text")
    before = stored_files(table)
    assert not run(table).changed
    assert stored_files(table) == before
    assert hint.exists()


def test_promise_7_exclude_patterns(tmp_path: Path) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    kept = [
        stray(table, "checkpoints/7/state"),
        stray(table, "data/p=a%2Fb/f.parquet"),
        stray(table, "data/f.keep"),
        stray(table, "data/_SUCCESS"),
    ]
    gone = stray(table, "data/f.parquet")
    run(table, exclude_patterns=["checkpoints/**", "data/p=a%2Fb/*", "*.keep"])
    assert all(path.exists() for path in kept)
    assert not gone.exists()


@pytest.mark.parametrize("properties", [{"gc.enabled": "false"}, {"encryption.key-id": "k"}])
def test_promise_8_refuses_and_says_why(tmp_path: Path, properties: dict[str, str]) -> None:
    table = aged(small_files(lake(tmp_path), 1, properties=properties))
    lost = stray(table, "data/lost.parquet")
    with pytest.raises(RetentionRefused, match=next(iter(properties))):
        run(table)
    assert lost.exists()
    assert orphan_work(table, OrphanCleanup(), NOW, 100).refusal


@pytest.mark.parametrize(("days", "age", "removed"), [(1, 23, False), (1, 25, True), (3, 71, False), (3, 73, True)])
def test_promise_10_age(tmp_path: Path, days: int, age: int, removed: bool) -> None:
    table = small_files(lake(tmp_path), 1)
    lost = stray(table, "data/lost.parquet", timedelta(hours=age))
    run(table, retention_period_in_days=days)
    assert lost.exists() is not removed


def test_promise_10_outputs_of_dead_operations_go_at_once_unless_referenced(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    young = stray(table, "data/written-by-the-dead.parquet", timedelta(minutes=5))
    other = stray(table, "data/written-by-a-living-writer.parquet", timedelta(minutes=5))
    elsewhere = tmp_path / "elsewhere.parquet"
    elsewhere.write_bytes(b"1234")
    live = data_files(table)[0].file_path
    dead = [f"file:{young}", live, f"file://{elsewhere}", f"file://{tmp_path}/never-written", table.metadata_location]
    context = context_for(table, time=NOW, dead=dead)
    result = run(table, context)
    assert not young.exists()
    assert not elsewhere.exists()
    assert other.exists()
    assert result.files_deleted == result.details["dead_outputs"] == 2
    assert {Path(d.path).name for d in context.journal.deletions} == {young.name, elsewhere.name}
    assert missing_files(table) == []
    assert len(rows_digest(table)) == 20


@pytest.mark.parametrize(
    ("caps", "named"),
    [
        ({"max_delete_files": 1}, "maxDeleteFiles"),
        ({"max_delete_bytes": 9}, "maxDeleteBytes"),
        ({"max_delete_share": 0.2}, "maxDeleteShare"),
    ],
)
def test_promise_18_caps(tmp_path: Path, caps: dict[str, Any], named: str) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    lost = [stray(table, f"data/lost-{n}.parquet") for n in range(2)]
    with pytest.raises(UnsafeOperation, match=named):
        run(table, **caps)
    assert all(path.exists() for path in lost)


def test_promise_18_killed_between_journal_and_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    lost = stray(table, "data/lost.parquet")
    context = context_for(table, time=NOW)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "delete_files", killed)
        with pytest.raises(KeyboardInterrupt):
            run(table, context)
    assert lost.exists()
    assert [d.path for d in context.journal.deletions] == [f"{table.location()}/data/lost.parquet"]
    assert context.journal.deleted == []
    assert run(table).files_deleted == 1
    assert not lost.exists()


def test_promise_18_quarantine_restore_and_purge(tmp_path: Path) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    lost = stray(table, "data/part=a%20b/lost.parquet")
    context = context_for(table, time=NOW)
    week = timedelta(days=7)
    result = run(table, context, quarantine=week)
    moved = context.journal.deletions[0]
    assert not lost.exists()
    assert result.files_quarantined == 1
    assert result.files_deleted == 0
    assert moved.quarantined_to == f"{table.location()}/_floe_quarantine/op-1/data/part=a%20b/lost.parquet"
    assert deletion.restore(table.io, [(moved.path, moved.quarantined_to)]) == 1
    assert lost.read_bytes() == b"stray"
    # a file that came back is young again
    assert not run(table, quarantine=week).changed

    os.utime(lost, (time.time(), (NOW - 10 * DAY).timestamp()))
    run(table, quarantine=week)
    later = request_for(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(quarantine=week), operation_id="op-2")
    assert not orphans.run(later, context_for(table, time=NOW + 6 * DAY), 0).changed
    context = context_for(table, time=NOW + 8 * DAY)
    purged = orphans.run(replace(later, operation_id="op-3"), context, 0)
    assert purged.files_deleted == purged.details["purged"] == 1
    assert "quarantine of operation op-1 is over" in context.journal.deletions[0].reason
    assert not list(local_path(table.location()).rglob("lost.parquet"))


def test_a_folder_of_the_table_can_be_cleaned_alone(tmp_path: Path) -> None:
    table = aged(small_files(lake(tmp_path), 1))
    inside, outside = stray(table, "data/lost.parquet"), stray(table, "metadata/lost.avro")
    run(table, location=f"{table.location()}/data")
    assert not inside.exists()
    assert outside.exists()


def test_assess_lists_no_more_than_it_may(tmp_path: Path) -> None:
    table = aged(small_files(lake(tmp_path), 2))
    stray(table, "data/lost.parquet")
    found = orphan_work(table, OrphanCleanup(), NOW, 1000)
    assert (found.found, found.files_in, found.bytes_in) == (True, 1, 5)
    for limit in (0, 3):
        undecided = orphan_work(table, OrphanCleanup(), NOW, limit)
        assert undecided.found is None
        assert "time since the last cleanup" in undecided.summary
    run(table)
    assert orphan_work(table, OrphanCleanup(), NOW, 1000).found is False


def test_a_table_without_snapshots(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    lost = stray(table, "data/lost.parquet")
    assert run(table).files_deleted == 1
    assert not lost.exists()
