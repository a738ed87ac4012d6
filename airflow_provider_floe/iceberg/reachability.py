"""Which files a table's metadata references: what must never be deleted (promise 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.iceberg.files import FileContent
from airflow_provider_floe.iceberg.listing import in_batches
from airflow_provider_floe.iceberg.manifests import decode_files, read_ahead, snapshot_manifests
from airflow_provider_floe.iceberg.paths import path_key

_LIST_READERS = 8


class FileKind(StrEnum):
    """What a referenced file is to the table."""

    DATA = "data file"
    DELETES = "delete file"
    MANIFEST = "manifest"
    MANIFEST_LIST = "manifest list"
    METADATA = "metadata file"
    STATISTICS = "statistics file"


@dataclass(frozen=True, slots=True)
class ReachableFile:
    """One referenced file.

    :ivar kind: deletion vectors and the Puffin files that hold them are DELETES.
    :ivar size_bytes: as metadata says; None where it does not (manifest lists, metadata files).
    """

    path: str
    kind: FileKind
    size_bytes: int | None


class ReferenceWalk:
    """Walks through everything that a table references, each manifest and manifest list once.

    A further walk over a table loaded again gives only what it references anew, which is how a long deletion learns
    of concurrent commits at the price of what they wrote.
    """

    def __init__(self) -> None:
        self._lists: set[str] = set()
        self._manifests: set[str] = set()
        self._metadata_location: str | None = None
        self.counts: Counter[FileKind] = Counter()
        """Files given so far, by kind; a data file that stands in two manifests counts twice."""

    @property
    def manifest_lists(self) -> Set[str]:
        """The manifest lists walked through, which stand for snapshots."""
        return self._lists

    def skip_manifests(self, paths: Collection[str]) -> None:
        """Do not open these manifests, nor give them."""
        self._manifests.update(paths)

    def new_files(self, table: Table, snapshots: Collection[int] | None = None) -> Iterator[ReachableFile]:
        """Everything referenced that this walk has not given before.

        :param snapshots: walk through these snapshots only; default: all that the metadata has.
        :raises TableUnreadable: when a manifest or manifest list cannot be read.
        :raises UnsafeOperation: when a manifest holds fewer files than its manifest list says, or a table with rows
            seems to have no files, which means that something was not read right.
        """
        if snapshots is None and table.metadata_location and self._metadata_location == table.metadata_location:
            return
        wanted = [s for s in table.metadata.snapshots if snapshots is None or s.snapshot_id in snapshots]
        for file in _metadata_files(table, {s.snapshot_id for s in wanted} if snapshots is not None else None):
            yield self._counted(file)
        unread = [s for s in wanted if s.manifest_list not in self._lists]
        for snapshot, manifests in read_manifest_lists(table, unread):
            self._lists.add(snapshot.manifest_list)
            yield self._counted(ReachableFile(snapshot.manifest_list, FileKind.MANIFEST_LIST, None))
            fresh = list({m.manifest_path: m for m in manifests if m.manifest_path not in self._manifests}.values())
            self._manifests.update(m.manifest_path for m in fresh)
            yield from self._manifest_files(table, fresh)
        if snapshots is None:
            self._refuse_empty_categories(table)
            self._metadata_location = table.metadata_location

    def _manifest_files(self, table: Table, manifests: list[ManifestFile]) -> Iterator[ReachableFile]:
        for manifest, data in read_ahead(table.io, manifests):
            yield self._counted(ReachableFile(manifest.manifest_path, FileKind.MANIFEST, manifest.manifest_length))
            found = 0
            for file in decode_files(manifest, data):
                found += 1
                kind = FileKind.DATA if file.content is FileContent.DATA else FileKind.DELETES
                yield self._counted(ReachableFile(file.path, kind, file.file_size_bytes))
            expected = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
            if found < expected:
                raise UnsafeOperation(
                    f"manifest {manifest.manifest_path} holds {found} live files, but its manifest list says "
                    f"{expected}: what the table references is not known for sure, so nothing is deleted"
                )

    def _counted(self, file: ReachableFile) -> ReachableFile:
        self.counts[file.kind] += 1
        return file

    def _refuse_empty_categories(self, table: Table) -> None:
        current = table.metadata.current_snapshot()
        totals = current.summary.additional_properties if current and current.summary else {}
        has_rows = any(totals.get(name, "0") != "0" for name in ("total-records", "total-data-files"))
        expected = {FileKind.MANIFEST_LIST: len(table.metadata.snapshots), FileKind.DATA: int(has_rows)}
        for kind, count in expected.items():
            if count and not self.counts[kind]:
                raise UnsafeOperation(
                    f"no {kind} of {table.metadata_location} was found, although its metadata says that there are "
                    "some: what the table references is not known for sure, so nothing is deleted"
                )


def read_manifest_lists(table: Table, snapshots: Collection[Snapshot]) -> Iterator[tuple[Snapshot, list[ManifestFile]]]:
    """The manifests of each snapshot, in order, several manifest lists read at a time.

    :raises TableUnreadable: naming the manifest list that cannot be read.
    """
    with ThreadPoolExecutor(_LIST_READERS, thread_name_prefix="floe-manifest-lists") as pool:
        for batch in in_batches(snapshots, _LIST_READERS):
            ids = [snapshot.snapshot_id for snapshot in batch]
            yield from zip(batch, pool.map(partial(snapshot_manifests, table), ids), strict=True)


def _metadata_files(table: Table, snapshots: Collection[int] | None) -> Iterator[ReachableFile]:
    """Metadata files (of the whole table only), and the statistics of the snapshots (default: all)."""
    metadata = table.metadata
    if snapshots is None:
        for location in (table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)):
            if location:
                yield ReachableFile(location, FileKind.METADATA, None)
    for statistics in (*metadata.statistics, *metadata.partition_statistics):
        if snapshots is None or statistics.snapshot_id in snapshots:
            yield ReachableFile(statistics.statistics_path, FileKind.STATISTICS, statistics.file_size_in_bytes)


class ReachableSet:
    """Everything that a table references, for asking whether a path is among it, however it is spelled."""

    def __init__(self, table: Table) -> None:
        walk = ReferenceWalk()
        self._files = {path_key(file.path): file for file in walk.new_files(table)}

    def __contains__(self, path: str) -> bool:
        return path_key(path) in self._files

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[ReachableFile]:
        return iter(self._files.values())


def reachable(table: Table) -> ReachableSet:
    """Data, delete and Puffin files of all snapshots, manifests, manifest lists, metadata and statistics files.

    :raises TableUnreadable: when metadata cannot be read.
    :raises UnsafeOperation: when a table with rows seems to have no files of a kind that it must have.
    """
    return ReachableSet(table)


@dataclass(frozen=True)
class Unreachable:
    """What one state of a table references and another does not.

    :ivar files: without metadata files, which always stay (promise 4).
    :ivar walk: has walked through all that the other state references, unless there are no files.
    """

    files: tuple[ReachableFile, ...]
    walk: ReferenceWalk

    def confirmed(self, before: Table, after: Table) -> Unreachable:
        """The same, held against the table as it is now: anything that it references anew is left out.

        Costs only what is new, unless snapshots that were to stay are gone as well; then all is computed anew.
        """
        if not self.files:
            return self
        lists = {snapshot.manifest_list for snapshot in after.metadata.snapshots}
        if not self.walk.manifest_lists <= lists:
            return unreachable_after(before, after)
        referenced = {path_key(file.path) for file in self.walk.new_files(after)}
        return Unreachable(tuple(f for f in self.files if path_key(f.path) not in referenced), self.walk)


def unreachable_after(before: Table, after: Table, *, without: Collection[int] = ()) -> Unreachable:
    """Exactly what ``before`` references and ``after`` does not (promise 11).

    It knows nothing of how the snapshots between the two were chosen. Manifests that both share are not held in
    memory; only files of manifests that are gone are.

    :param without: snapshots of ``after`` to count as gone: foretells what removing them would leave behind.
    :raises TableUnreadable: or UnsafeOperation, see :meth:`ReferenceWalk.new_files`.
    """
    walk = ReferenceWalk()
    kept = [s for s in after.metadata.snapshots if s.snapshot_id not in without]
    kept_ids = {s.snapshot_id for s in kept}
    kept_lists = {s.manifest_list for s in kept}
    gone = {s.snapshot_id for s in before.metadata.snapshots if s.manifest_list not in kept_lists}
    gone |= {s.snapshot_id for s in (*before.metadata.statistics, *before.metadata.partition_statistics)} - kept_ids
    if not gone:
        return Unreachable((), walk)
    old = ReferenceWalk()
    old.skip_manifests({m.manifest_path for _, manifests in read_manifest_lists(after, kept) for m in manifests})
    candidates = {path_key(file.path): file for file in old.new_files(before, gone)}
    for file in walk.new_files(after, kept_ids if without else None):
        candidates.pop(path_key(file.path), None)
    return Unreachable(tuple(candidates.values()), walk)
