"""What a table is at one moment, and what must hold between two, read by pyiceberg and DuckDB, not by this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from conformance_lake import Lake, stored
from harness.oracle import Digest
from harness.tables import data_files, delete_files
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation as SnapshotOperation

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY, OperationResult
from airflow_provider_floe.stores.protocols import OperationRecord

_STARTING_SEQUENCE = "useStartingSequenceNumber"


@dataclass(frozen=True)
class State:
    """A table at one moment.

    :ivar rows: of the current snapshot.
    :ivar refs: by name, the snapshot of each branch and tag, and its rows.
    :ivar lineage: which row is which; None before format version 3.
    :ivar deletes: delete files, each as often as it is live: a file holds the deletion vectors of many data files.
    :ivar reachable: every file that a snapshot references, manifests and their lists included.
    :ivar live: the live files of the current snapshot, each with its sequence number and partition spec.
    """

    table: Table
    rows: Digest
    refs: Mapping[str, tuple[int, Digest]]
    lineage: list[str] | None
    data: Mapping[str, DataFile]
    deletes: Counter[str]
    manifests: frozenset[str]
    stored: Mapping[str, int]
    reachable: frozenset[str]
    live: Counter[tuple[str, int | None, int]]


def capture(lake: Lake, table: Table) -> State:
    table = lake.catalog.load_table(table.name())
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return State(
        table=table,
        rows=lake.digest(table),
        refs={
            name: (ref.snapshot_id, lake.digest(table, ref.snapshot_id))
            for name, ref in table.metadata.refs.items()
            if name != "main"
        },
        lineage=lake.row_lineage(table) if table.metadata.format_version >= 3 else None,
        data={file.file_path: file for file in data_files(table)},
        deletes=Counter(file.file_path for file in delete_files(table)),
        manifests=frozenset(manifest.manifest_path for manifest in manifests),
        stored=stored(table),
        reachable=_reachable(table),
        live=Counter(
            (entry.data_file.file_path, entry.sequence_number, manifest.partition_spec_id)
            for manifest in manifests
            for entry in manifest.fetch_manifest_entry(table.io)
        ),
    )


def _reachable(table: Table) -> frozenset[str]:
    found: set[str] = set()
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in found:
                continue
            found.add(manifest.manifest_path)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status != ManifestEntryStatus.DELETED:
                    found.add(entry.data_file.file_path)
    for statistics in (*table.metadata.statistics, *table.metadata.partition_statistics):
        found.add(statistics.statistics_path)
    return frozenset(found)


def check_untouched(before: State, after: State) -> None:
    """Nothing was committed, written or deleted."""
    assert after.table.metadata_location == before.table.metadata_location
    assert after.stored == before.stored


def check_same_rows(before: State, after: State) -> None:
    """Every reader reads what was there, on every branch and tag that is left, and every file for that is there."""
    assert after.rows == before.rows
    for name, found in after.refs.items():
        assert found == before.refs[name], name
    assert after.lineage == before.lineage
    assert not after.reachable - after.stored.keys(), "files are missing"


def check_data_rewrite(before: State, after: State, record: OperationRecord, settings: Mapping[str, object]) -> None:
    """Numbers, sequence numbers, evidence and history of a rewrite of data files."""
    check_same_rows(before, after)
    result = _result(record)
    gone = [file for path, file in before.data.items() if path not in after.data]
    new = [file for path, file in after.data.items() if path not in before.data]
    assert (result.files_rewritten, result.files_added) == (len(gone), len(new)), result
    assert result.bytes_rewritten == sum(file.file_size_in_bytes for file in gone)
    assert result.bytes_added == sum(file.file_size_in_bytes for file in new)
    assert result.delete_files_removed == before.deletes.total() - after.deletes.total()
    newest = before.table.metadata.last_sequence_number
    if settings.get(_STARTING_SEQUENCE, True):
        late = [path for path, sequence, _ in after.live if sequence is None or sequence > newest]
        assert not late, "deletes that writers commit meanwhile would not reach the new files"
    _check_commits(before, after, record, result)


def check_delete_rewrite(before: State, after: State, record: OperationRecord) -> None:
    """Numbers and history of a compaction of position deletes, which touches no data file."""
    check_same_rows(before, after)
    result = _result(record)
    assert after.data.keys() == before.data.keys()
    gone, new = before.deletes - after.deletes, after.deletes - before.deletes
    assert (result.files_rewritten, result.files_added) == (gone.total(), new.total())
    assert result.delete_files_removed == gone.total() - new.total()
    _check_commits(before, after, record, result)


def check_manifest_rewrite(before: State, after: State, record: OperationRecord) -> None:
    """Numbers, live files and history of a rewrite of manifests."""
    check_same_rows(before, after)
    result = _result(record)
    assert after.live == before.live
    assert result.manifests_rewritten == len(before.manifests - after.manifests)
    assert result.manifests_added == len(after.manifests - before.manifests)
    _check_commits(before, after, record, result)


def check_statistics(before: State, after: State, record: OperationRecord) -> None:
    """Numbers of statistics, which are of the current snapshot and change nothing else."""
    check_same_rows(before, after)
    result = _result(record)
    assert result.changed
    assert after.table.metadata.snapshots == before.table.metadata.snapshots
    current = after.table.metadata.current_snapshot_id
    assert result.snapshot_before == result.snapshot_after == before.table.metadata.current_snapshot_id == current
    (entry,) = (one for one in after.table.metadata.statistics if one.snapshot_id == current)
    assert entry.statistics_path not in before.stored
    assert after.stored[entry.statistics_path] == entry.file_size_in_bytes == result.bytes_added
    assert result.files_added == 1


def check_expiry(before: State, after: State, record: OperationRecord, left_over: int = 0) -> None:
    """Numbers of an expiry, and that exactly what became unreachable was deleted.

    :param left_over: files that should be deleted, but that the engine is known to leave and to report.
    """
    check_same_rows(before, after)
    result = _result(record)
    expired = {one.snapshot_id for one in before.table.metadata.snapshots} - {
        one.snapshot_id for one in after.table.metadata.snapshots
    }
    assert result.snapshots_expired == len(expired)
    deleted, unreachable = before.stored.keys() - after.stored.keys(), before.reachable - after.reachable
    assert deleted <= unreachable
    left = sorted(unreachable - deleted)
    assert len(left) == result.details.get("left_over", 0) == left_over, (left, result.details)
    assert (result.files_deleted, result.bytes_deleted) == (len(deleted), sum(before.stored[path] for path in deleted))
    added = after.stored.keys() - before.stored.keys()
    assert all(path.endswith(".metadata.json") for path in added)


def check_orphans(before: State, after: State, record: OperationRecord) -> None:
    """Numbers of a removal of orphans, which never touches the table."""
    check_same_rows(before, after)
    result = _result(record)
    assert after.table.metadata_location == before.table.metadata_location
    deleted = before.stored.keys() - after.stored.keys()
    assert not deleted & before.reachable
    assert (result.files_deleted, result.bytes_deleted) == (len(deleted), sum(before.stored[path] for path in deleted))
    assert not after.stored.keys() - before.stored.keys()


def _check_commits(before: State, after: State, record: OperationRecord, result: OperationResult) -> None:
    known = {one.snapshot_id for one in before.table.metadata.snapshots}
    made = [one for one in after.table.metadata.snapshots if one.snapshot_id not in known]
    assert len(after.table.metadata.snapshots) == len(known) + len(made), "history was lost"
    assert made
    assert result.changed
    assert result.snapshot_before == before.table.metadata.current_snapshot_id
    assert result.snapshot_after == after.table.metadata.current_snapshot_id == made[-1].snapshot_id
    for snapshot in made:
        assert snapshot.summary is not None
        assert snapshot.summary.operation is SnapshotOperation.REPLACE
        told = snapshot.summary.additional_properties
        if record.engine == "trino":
            assert told.get("trino_query_id") in (record.remote_job, None)
        elif record.remote_job is None or record.remote_job.startswith("spark-submit"):
            assert told[OPERATION_ID_PROPERTY] == record.id
    left = after.stored.keys() - before.stored.keys() - after.reachable
    assert all(path.endswith(".metadata.json") for path in left), "files were left that nothing references"


def _result(record: OperationRecord) -> OperationResult:
    assert record.result is not None
    return record.result
