"""Which delete files apply to which data files. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.iceberg.files import FileContent, LiveFile


class DeleteIndex:
    """Delete files, looked up by data file.

    Iceberg's rules: an equality delete applies to older data only (sequence number lower), a position delete to data
    up to its own. Either reaches its partition; an equality delete under an unpartitioned spec reaches the whole
    table, a position delete that names one file only that one. A position delete also cannot name a file that was
    written after it: rewritten files keep an old sequence number, so the snapshot that added them is asked.
    """

    def __init__(self, metadata: TableMetadata, deletes: Iterable[LiveFile]) -> None:
        self._added_in = {snapshot.snapshot_id: snapshot.sequence_number or 0 for snapshot in metadata.snapshots}
        unpartitioned = {spec_id for spec_id, spec in metadata.specs().items() if spec.is_unpartitioned()}
        self._by_path: defaultdict[str, list[LiveFile]] = defaultdict(list)
        self._by_partition: defaultdict[tuple[int, tuple[Any, ...]], list[LiveFile]] = defaultdict(list)
        self._equality: defaultdict[tuple[int, tuple[Any, ...]], list[LiveFile]] = defaultdict(list)
        self._everywhere: list[LiveFile] = []
        self.empty = True
        for delete in deletes:
            if delete.content is FileContent.DATA:
                continue
            self.empty = False
            if delete.content is FileContent.EQUALITY_DELETES:
                if delete.spec_id in unpartitioned:
                    self._everywhere.append(delete)
                else:
                    self._equality[delete.spec_id, delete.partition].append(delete)
            elif delete.referenced_data_file is not None:
                self._by_path[delete.referenced_data_file].append(delete)
            else:
                self._by_partition[delete.spec_id, delete.partition].append(delete)

    def of(self, data: LiveFile) -> list[LiveFile]:
        """The delete files that may remove rows of a data file."""
        return list(self._applicable(data))

    def touches(self, data: LiveFile) -> bool:
        """Whether any delete file may remove rows of a data file."""
        return next(self._applicable(data), None) is not None

    def _applicable(self, data: LiveFile) -> Iterator[LiveFile]:
        if self.empty:
            return
        place = (data.spec_id, data.partition)
        oldest = max(data.sequence_number, self._added_in.get(data.snapshot_id or 0, 0))
        for candidates in (self._by_path.get(data.path, ()), self._by_partition.get(place, ())):
            for delete in candidates:
                if delete.sequence_number >= oldest:
                    yield delete
        for candidates in (self._everywhere, self._equality.get(place, ())):
            for delete in candidates:
                if delete.sequence_number > data.sequence_number:
                    yield delete


def needed_deletes(index: DeleteIndex, data: Iterable[LiveFile]) -> set[str]:
    """Paths of the delete files that may still remove rows of some of the data files."""
    return {delete.path for file in data for delete in index.of(file)}
