"""A task that is cleared stops at the next checkpoint, leaves nothing behind, and tells how far it came until then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from harness import version_3
from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import oracle_digest
from harness.tables import (
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    lake,
    local_path,
    missing_files,
    referenced_files,
    request_for,
    rows,
    small_files,
    stored_files,
)
from harness.version_3 import add_vectors, append, upgrade
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local import deletion, raw_copy, reader
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.engines.local.writer import RollingWriter
from airflow_provider_floe.errors import OperationCancelled
from airflow_provider_floe.iceberg import listing
from airflow_provider_floe.policies.model import (
    ExpireSnapshots,
    OperationSettings,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
    RewritePositionDeleteFiles,
)
from airflow_provider_floe.tables import Operation

MEMORY = 256 * 1024**2


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables take the steps that large ones do."""
    monkeypatch.setattr(raw_copy, "CHUNK_BYTES", 256)
    monkeypatch.setattr(reader, "BATCH_ROWS", 4)
    monkeypatch.setattr(deletion, "_BATCH", 3)
    monkeypatch.setattr(listing, "BATCH", 3)


def plain(folder: Path) -> Table:
    return small_files(lake(folder), 3)


def partitioned(folder: Path) -> Table:
    return small_files(lake(folder), 3, parts=("a", "b"))


def with_deletes(folder: Path) -> Table:
    table = small_files(lake(folder), 3)
    for file in data_files(table):
        for position in (1, 2):
            position_delete(table, {file.file_path: [position]})
    equality_delete(table, rows(25, 1), ["id"])
    return table


def with_vectors(folder: Path) -> Table:
    table = upgrade(create_table(lake(folder)))
    for number in range(3):
        append(table, rows(10 * number, 10))
    for file in version_3.live(table):
        add_vectors(table, {file.path: [1, 2]})
    return table


def with_history(folder: Path) -> Table:
    table = small_files(lake(folder), 4)
    table.overwrite(rows(100, 10))
    append_files(table, 1, start=200)
    return table


def with_strays(folder: Path) -> Table:
    table = small_files(lake(folder), 4)
    for number in range(7):
        (local_path(table.location()) / "data" / f"stray-{number}.parquet").write_bytes(b"of a writer that died")
    return table


DATA, DELETES = Operation.REWRITE_DATA_FILES, Operation.REWRITE_POSITION_DELETE_FILES
EXPIRY = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1))
CASES: Mapping[str, tuple[Callable[[Path], Table], Operation, OperationSettings]] = {
    "row groups copied": (plain, DATA, RewriteDataFiles()),
    "partitions": (partitioned, DATA, RewriteDataFiles()),
    "sort": (plain, DATA, RewriteDataFiles(strategy="SORT", sort_order=["id desc"])),
    "z-order": (plain, DATA, RewriteDataFiles(strategy="ZORDER", z_order_columns=["id", "text"])),
    "deletes applied": (with_deletes, DATA, RewriteDataFiles()),
    "vectors applied": (with_vectors, DATA, RewriteDataFiles()),
    "position deletes": (with_deletes, DELETES, RewritePositionDeleteFiles(min_input_files=2)),
    "vectors": (with_vectors, DELETES, RewritePositionDeleteFiles(min_input_files=2)),
    "manifests": (plain, Operation.REWRITE_MANIFESTS, RewriteManifests()),
    "manifests of deletes": (with_deletes, Operation.REWRITE_MANIFESTS, RewriteManifests()),
}


def run(table: Table, operation: Operation, settings: OperationSettings, context: FakeContext) -> OperationResult:
    try:
        return LocalEngine(MEMORY).execute(request_for(table, operation, settings), context)
    finally:
        table.refresh()


class Clearing:
    """Cancels at one checkpoint, whose number counts from 1, and counts those that come after it."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self) -> None:
        self.seen += 1
        if self.seen >= self.at:
            raise OperationCancelled("the task was cleared")


@pytest.mark.parametrize("case", CASES)
def test_wherever_it_is_cleared_the_table_and_its_files_are_as_they_were(tmp_path: Path, case: str) -> None:
    build, operation, settings = CASES[case]
    table = build(tmp_path)
    before, metadata = stored_files(table), table.metadata_location
    told = oracle_digest(metadata)
    for at in range(1, 200):
        clearing = Clearing(at)
        context = context_for(table, on_checkpoint=clearing)
        try:
            result = run(table, operation, settings, context)
        except OperationCancelled:
            assert clearing.seen == at, "it went on after it was told to stop"
            assert table.metadata_location == metadata
            assert stored_files(table) == before
            assert not context.commits_begun
        else:
            break
    assert result.changed
    assert at > 4, "there is hardly a point at which it would stop"
    assert oracle_digest(table.metadata_location) == told
    assert missing_files(table) == []
    shares = [(done, total) for done, total, unit in context.progressed if unit == "bytes"]
    assert shares == sorted(shares)
    assert shares[-1][0] == shares[-1][1] > 0


def test_rows_that_are_put_into_order_are_written_under_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 2**16)
    table = small_files(lake(tmp_path), 3, rows_each=70_000)
    before = stored_files(table)
    written: list[int] = []
    write = RollingWriter.write

    def counted(self: RollingWriter, batch: pa.RecordBatch) -> None:
        written.append(batch.num_rows)
        write(self, batch)

    def clear_once_written() -> None:
        if written:
            raise OperationCancelled("the task was cleared")

    monkeypatch.setattr(RollingWriter, "write", counted)
    settings = RewriteDataFiles(strategy="SORT", sort_order=["id desc"])
    with pytest.raises(OperationCancelled):
        run(table, DATA, settings, context_for(table, on_checkpoint=clear_once_written))
    assert sum(written) < 210_000
    assert stored_files(table) == before


@pytest.mark.parametrize(
    ("build", "operation", "settings"),
    [
        (with_history, Operation.EXPIRE_SNAPSHOTS, EXPIRY),
        (with_strays, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup()),
    ],
    ids=["expiry", "orphans"],
)
def test_wherever_a_deletion_is_cleared_the_journal_tells_what_went(
    tmp_path: Path, build: Callable[[Path], Table], operation: Operation, settings: OperationSettings
) -> None:
    for at in range(1, 50):
        table = build(tmp_path / str(at))
        before, metadata = stored_files(table), table.metadata_location
        told = oracle_digest(metadata)
        clearing = Clearing(at)
        context = context_for(table, on_checkpoint=clearing)
        try:
            run(table, operation, settings, context)
        except OperationCancelled:
            assert clearing.seen == at
            gone = before - stored_files(table)
            assert gone == {local_path(path) for path in context.journal.deleted}
            assert len(context.journal.deletions) == len(context.journal.deleted)
            if not context.commits_done:
                assert (table.metadata_location, gone) == (metadata, set()) or build is with_strays
            assert oracle_digest(table.metadata_location) == told
            assert missing_files(table) == []
            # what an expiry did not come to delete is what a removal of orphans finds
            run(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(), context_for(table))
            run(table, operation, settings, context_for(table))
            assert _unnamed(table) == set()
        else:
            break
    assert at > 4
    done, total, _ = context.progressed[-1]
    assert done == total > 0


def _unnamed(table: Table) -> set[Path]:
    named = {local_path(path) for path in referenced_files(table)}
    return {path for path in stored_files(table) if path.suffix != ".json"} - named


def test_groups_side_by_side_all_stop(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=tuple("abcdef"))
    before = stored_files(table)

    def clear() -> None:
        if context.journal.outputs:
            raise OperationCancelled("the task was cleared")

    context = context_for(table, on_checkpoint=clear)
    settings = RewriteDataFiles(strategy="SORT", sort_order=["id desc"])
    with pytest.raises(OperationCancelled):
        LocalEngine(4 * MEMORY).execute(request_for(table, DATA, settings), context)
    assert stored_files(table) == before
