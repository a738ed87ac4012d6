"""What commits need to know of live files, manifest by manifest. Manifests never change, so each answer is kept."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.iceberg.aggregates import Totals
from airflow_provider_floe.iceberg.candidate_rows import Ints
from airflow_provider_floe.iceberg.deletes import DeleteIndex, Reach
from airflow_provider_floe.iceberg.file_groups import StandingFiles
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifests import DataRow, data_file, data_rows, first_row_id, live_files, read_ahead

Gone = Mapping[str, Ints]
"""Data files that leave: path of the manifest, and their places among its live files."""

_NONE = np.empty(0, np.int32)


class LiveIndex:
    """Live files by manifest. Each manifest is read once however often a commit is tried.

    Only the row id from which a manifest's files are counted is told elsewhere, by the manifest list.
    """

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self._files: dict[tuple[str, int | None], list[LiveFile]] = {}

    def files(self, manifests: Sequence[ManifestFile]) -> list[LiveFile]:
        """The live files that these manifests hold."""
        keys = {manifest.manifest_path: (manifest.manifest_path, first_row_id(manifest)) for manifest in manifests}
        unread = [manifest for manifest in manifests if keys[manifest.manifest_path] not in self._files]
        for manifest in unread:
            self._files[keys[manifest.manifest_path]] = []
        for file in live_files(self._io, unread):
            self._files[keys[file.manifest_path]].append(file)
        return [file for manifest in manifests for file in self._files[keys[manifest.manifest_path]]]


class ReachedIndex:
    """Delete files, and the data files that position deletes may reach; the others, maybe millions, are counted."""

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self._deletes = LiveIndex(io)
        self._reached: dict[str, list[LiveFile]] = {}
        self._totals: dict[str, Totals] = {}
        self._asked = frozenset[str]()

    def files(self, metadata: TableMetadata, manifests: Sequence[ManifestFile]) -> list[LiveFile]:
        """The live delete files, and behind them the data files that position deletes among them may reach."""
        deletes = self._deletes.files([one for one in manifests if one.content != ManifestContent.DATA])
        positions = [file for file in deletes if file.content is FileContent.POSITION_DELETES]
        keys = frozenset(file.key for file in positions)
        if keys != self._asked:
            self._reached, self._asked = {}, keys
        index = DeleteIndex(metadata, positions)
        wanted = _data_manifests(manifests)
        for manifest, rows in _read(self._io, [one for one in wanted if one.manifest_path not in self._reached]):
            self._take(manifest, rows, index)
        return [*deletes, *(file for one in wanted for file in self._reached[one.manifest_path])]

    def totals(self, manifests: Sequence[ManifestFile]) -> Totals:
        """Sums over the live data files of manifests whose files were asked for."""
        return sum((self._totals[one.manifest_path] for one in _data_manifests(manifests)), Totals())

    def _take(self, manifest: ManifestFile, rows: Iterable[DataRow], index: DeleteIndex) -> None:
        path, spec_id = manifest.manifest_path, manifest.partition_spec_id
        reached: list[LiveFile] = []
        files = size = records = 0
        for row in rows:
            files, size, records = files + 1, size + row[4], records + row[3]
            if index.may_touch(row[0], (spec_id, row[2])):
                reached.append(data_file(spec_id, row, path))
        self._reached[path], self._totals[path] = reached, Totals(files, size, records)


class DataIndex:
    """Delete files one by one, and of data files, which may be millions, only what is asked of them.

    :param totals: of the data files of manifests that were read already, by path.
    """

    def __init__(self, io: FileIO, totals: Mapping[str, Totals]) -> None:
        self._io = io
        self._totals = dict(totals)
        self._deletes = LiveIndex(io)
        self._needed: dict[str, frozenset[str]] = {}
        self._asked: tuple[frozenset[str], Gone] = (frozenset(), {})

    def deletes(self, manifests: Sequence[ManifestFile]) -> list[LiveFile]:
        """The live delete files."""
        return self._deletes.files([one for one in manifests if one.content != ManifestContent.DATA])

    def totals(self, manifests: Sequence[ManifestFile]) -> Totals:
        """Sums over the live data files."""
        wanted = _data_manifests(manifests)
        unread = [one for one in wanted if one.manifest_path not in self._totals]
        for manifest, rows in _read(self._io, unread):
            files = size = records = 0
            for row in rows:
                files, size, records = files + 1, size + row[4], records + row[3]
            self._totals[manifest.manifest_path] = Totals(files, size, records)
        return sum((self._totals[one.manifest_path] for one in wanted), Totals())

    def needed(
        self, metadata: TableMetadata, manifests: Sequence[ManifestFile], deletes: Sequence[LiveFile], gone: Gone
    ) -> set[str]:
        """Keys of those of some delete files that may still remove rows of data files which stay."""
        keys = frozenset(delete.key for delete in deletes)
        if keys != self._asked[0] or not _same(gone, self._asked[1]):
            self._needed, self._asked = {}, (keys, gone)
        index = DeleteIndex(metadata, deletes)
        wanted = _data_manifests(manifests)
        for manifest, rows in _read(self._io, [one for one in wanted if one.manifest_path not in self._needed]):
            reach, spec_id = Reach(index), manifest.partition_spec_id
            leaving = set(gone.get(manifest.manifest_path, _NONE).tolist())
            for place, row in enumerate(rows):
                if index.may_touch(row[0], (spec_id, row[2])) and place not in leaving:
                    reach.add(data_file(spec_id, row))
            self._needed[manifest.manifest_path] = frozenset(delete.key for delete in reach.found())
        return {key for one in wanted for key in self._needed[one.manifest_path]}

    def find(
        self, manifests: Sequence[ManifestFile], paths: Container[str]
    ) -> Iterator[tuple[ManifestFile, int, DataRow]]:
        """Where data files of these paths stand: the manifest, and the place among its live files."""
        for manifest, rows in _read(self._io, _data_manifests(manifests)):
            for place, row in enumerate(rows):
                if row[0] in paths:
                    yield manifest, place, row


def rows_of(io: FileIO, standing: Iterable[StandingFiles]) -> Iterator[tuple[ManifestFile, int, DataRow]]:
    """What the manifests say of files, with the number of each one's group."""
    parts = {one.manifest.manifest_path: one for one in standing}
    for manifest, rows in _read(io, [one.manifest for one in parts.values()]):
        part = parts[manifest.manifest_path]
        groups = dict(zip(part.positions.tolist(), part.groups.tolist(), strict=True))
        for place, row in enumerate(rows):
            if place in groups:
                yield manifest, groups[place], row


def _read(io: FileIO, manifests: Sequence[ManifestFile]) -> Iterator[tuple[ManifestFile, Iterator[DataRow]]]:
    for manifest, data in read_ahead(io, manifests):
        yield manifest, data_rows(manifest, data)


def _data_manifests(manifests: Iterable[ManifestFile]) -> list[ManifestFile]:
    return [one for one in manifests if one.content == ManifestContent.DATA]


def _same(one: Gone, other: Gone) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(places, other[path]) for path, places in one.items())
