"""What a snapshot changed, read from the table's metadata, whichever engine made it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.local.verify import Expectation
from airflow_provider_floe.iceberg.manifests import snapshot_manifests


@dataclass
class Change:
    """Files that one snapshot removed and added.

    :ivar expected: what the removed data files held.
    """

    expected: Expectation = field(default_factory=Expectation)
    bytes_removed: int = 0
    added: list[DataFile] = field(default_factory=list)
    delete_files_removed: int = 0
    delete_files_added: int = 0
    delete_bytes_removed: int = 0
    delete_bytes_added: int = 0

    @property
    def bytes_added(self) -> int:
        """Size of the added data files."""
        return sum(file.file_size_in_bytes for file in self.added)

    @property
    def rows_added(self) -> int:
        """Rows in the added data files."""
        return sum(file.record_count for file in self.added)


def change_of(table: Table, snapshot: Snapshot) -> Change:
    """What a snapshot changed, by the manifests that it added."""
    change = Change()
    for manifest in snapshot_manifests(table, snapshot.snapshot_id):
        if manifest.added_snapshot_id != snapshot.snapshot_id:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            file, is_data = entry.data_file, entry.data_file.content == DataFileContent.DATA
            if entry.snapshot_id not in (None, snapshot.snapshot_id):
                continue
            if entry.status == ManifestEntryStatus.DELETED and is_data:
                change.expected.add(file, table.schema())
                change.bytes_removed += file.file_size_in_bytes
            elif entry.status == ManifestEntryStatus.DELETED:
                change.delete_files_removed += 1
                change.delete_bytes_removed += file.file_size_in_bytes
            elif entry.status == ManifestEntryStatus.ADDED and is_data:
                change.added.append(file)
            elif entry.status == ManifestEntryStatus.ADDED:
                change.delete_files_added += 1
                change.delete_bytes_added += file.file_size_in_bytes
    return change
