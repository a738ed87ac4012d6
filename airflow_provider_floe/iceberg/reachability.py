"""Which files a table's metadata references: what must never be deleted (promise 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from enum import StrEnum
from typing import NamedTuple

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.errors import TableUnreadable, UnsafeOperation
from airflow_provider_floe.iceberg.avro import Projection, read_rows
from airflow_provider_floe.iceberg.fetching import fetched
from airflow_provider_floe.iceberg.listing import in_batches
from airflow_provider_floe.iceberg.manifest_lists import ListedManifest, listed_manifests
from airflow_provider_floe.iceberg.manifests import DELETED
from airflow_provider_floe.iceberg.paths import path_key, path_keys

_LISTS_AT_ONCE = 64
_FILES = Projection((0, 134, 100, 104), frozenset((0, 100, 104)))
"""Status, content, path and size: all that reachability asks."""


class FileKind(StrEnum):
    """What a referenced file is to the table."""

    DATA = "data file"
    DELETES = "delete file"
    MANIFEST = "manifest"
    MANIFEST_LIST = "manifest list"
    METADATA = "metadata file"
    STATISTICS = "statistics file"


class ReachableFile(NamedTuple):
    """One referenced file.

    :ivar kind: deletion vectors and the Puffin files that hold them are DELETES.
    :ivar size_bytes: None for metadata files, whose size nothing tells.
    """

    path: str
    kind: FileKind
    size_bytes: int | None


class Found(NamedTuple):
    """Referenced files of one kind, in columns: there are millions."""

    kind: FileKind
    paths: Sequence[str]
    sizes: Sequence[int | None]

    def files(self) -> Iterator[ReachableFile]:
        """The same, one by one."""
        return (ReachableFile(path, self.kind, size) for path, size in zip(self.paths, self.sizes, strict=True))


class ReadList(NamedTuple):
    """A snapshot with what its manifest list names.

    :ivar size_bytes: of the manifest list.
    """

    snapshot: Snapshot
    size_bytes: int
    manifests: list[ListedManifest]


class ReferenceWalk:
    """Walks through everything that a table references, each manifest and manifest list once.

    A further walk over a table loaded again gives only what it references anew, which is how a long deletion learns
    of concurrent commits at the price of what they wrote.
    """

    def __init__(self) -> None:
        self._lists: set[str] = set()
        self._manifests: set[str] = set()
        self._metadata_location: str | None = None
        self._listed: list[tuple[str, int]] = []
        self._unread: list[ListedManifest] = []
        self.counts: Counter[FileKind] = Counter()
        """Files given so far, by kind; a data file that stands in two manifests counts twice."""

    @property
    def manifest_lists(self) -> Set[str]:
        """The manifest lists walked through, which stand for snapshots."""
        return self._lists

    @property
    def manifests(self) -> Set[str]:
        """The manifests that those name."""
        return self._manifests

    def skip_manifests(self, paths: Set[str]) -> None:
        """Do not open these manifests, nor give them."""
        self._manifests |= paths

    def new_files(self, table: Table, snapshots: Collection[int] | None = None) -> Iterator[ReachableFile]:
        """:meth:`new_batches`, file by file."""
        for found in self.new_batches(table, snapshots):
            yield from found.files()

    def new_batches(self, table: Table, snapshots: Collection[int] | None = None) -> Iterator[Found]:
        """Everything referenced that this walk has not given before, a manifest's files at a time.

        :param snapshots: walk through these snapshots only; default: all that the metadata has.
        :raises TableUnreadable: when a manifest or manifest list cannot be read.
        :raises UnsafeOperation: when a manifest holds fewer files than its manifest list says, or a table with rows
            seems to have no files, which means that something was not read right.
        """
        if snapshots is None and table.metadata_location and self._metadata_location == table.metadata_location:
            return
        wanted = [s for s in table.metadata.snapshots if snapshots is None or s.snapshot_id in snapshots]
        yield from self._counted(_metadata_files(table, wanted, everything=snapshots is None))
        yield from self._counted(self._read(table))
        for some in in_batches(wanted, _LISTS_AT_ONCE):
            self.read_lists(table, some)
            yield from self._counted(self._read(table))
        if snapshots is None:
            self._refuse_empty_categories(table)
            self._metadata_location = table.metadata_location

    def read_lists(self, table: Table, snapshots: Iterable[Snapshot]) -> None:
        """Read the manifest lists of snapshots ahead of the walk, which then goes on with their manifests.

        :raises TableUnreadable: when one cannot be read.
        """
        for one in read_manifest_lists(table, (s for s in snapshots if s.manifest_list not in self._lists)):
            self._lists.add(one.snapshot.manifest_list)
            self._listed.append((one.snapshot.manifest_list, one.size_bytes))
            for manifest in one.manifests:
                if manifest.path not in self._manifests:
                    self._manifests.add(manifest.path)
                    self._unread.append(manifest)

    def _read(self, table: Table) -> Iterator[Found]:
        """What the lists read so far name, and what the manifests hold."""
        if self._listed:
            yield Found(FileKind.MANIFEST_LIST, *zip(*self._listed, strict=True))
            self._listed = []
        manifests, self._unread = self._unread, []
        for manifest, data in zip(
            manifests, fetched(table.io, [one.path for one in manifests], FileKind.MANIFEST), strict=True
        ):
            yield Found(FileKind.MANIFEST, [manifest.path], [manifest.length])
            held = list(files_of(manifest, data))
            yield from held
            if (live := sum(len(found.paths) for found in held)) < manifest.files:
                raise UnsafeOperation(
                    f"manifest {manifest.path} holds {live} live files, but its manifest list says "
                    f"{manifest.files}: what the table references is not known for sure, so nothing is deleted"
                )

    def _counted(self, batches: Iterable[Found]) -> Iterator[Found]:
        for found in batches:
            self.counts[found.kind] += len(found.paths)
            yield found

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


def files_of(manifest: ListedManifest, data: bytes) -> Iterator[Found]:
    """The live files in a manifest's bytes.

    :raises TableUnreadable: when it is cut off or damaged.
    """
    # Cut off between two blocks it would decode without complaint, and its files would pass for unreferenced.
    if len(data) < manifest.length:
        raise TableUnreadable(f"manifest {manifest.path} is cut off: {len(data)} of {manifest.length} bytes")
    live = [row for row in read_rows(data, _FILES, manifest.path) if row[0] != DELETED]
    for kind in (FileKind.DATA, FileKind.DELETES):
        rows = [row for row in live if bool(row[1]) == (kind is FileKind.DELETES)]
        if rows:
            _, _, paths, sizes = zip(*rows, strict=True)
            yield Found(kind, paths, sizes)


def read_manifest_lists(table: Table, snapshots: Iterable[Snapshot]) -> Iterator[ReadList]:
    """The manifests of each snapshot, in order, several manifest lists read at a time.

    :raises TableUnreadable: naming the manifest list that cannot be read.
    """
    for some in in_batches(snapshots, _LISTS_AT_ONCE):
        paths = [snapshot.manifest_list for snapshot in some]
        for snapshot, data in zip(some, fetched(table.io, paths, FileKind.MANIFEST_LIST), strict=True):
            manifests = listed_manifests(data, f"manifest list {snapshot.manifest_list}")
            yield ReadList(snapshot, len(data), manifests)


def _metadata_files(table: Table, snapshots: Sequence[Snapshot], *, everything: bool) -> Iterator[Found]:
    """Metadata files (of the whole table only), and the statistics of the snapshots."""
    metadata = table.metadata
    if everything:
        locations = (table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log))
        paths = [location for location in locations if location]
        yield Found(FileKind.METADATA, paths, [None] * len(paths))
    ids = {snapshot.snapshot_id for snapshot in snapshots}
    statistics = [
        (one.statistics_path, one.file_size_in_bytes)
        for one in (*metadata.statistics, *metadata.partition_statistics)
        if everything or one.snapshot_id in ids
    ]
    if statistics:
        yield Found(FileKind.STATISTICS, *zip(*statistics, strict=True))


def unreferenced(table: Table, paths: Iterable[str]) -> list[str]:
    """Those of some paths that the table does not reference, however it spells them; only they are in memory.

    :raises TableUnreadable: as :func:`reachable`, or UnsafeOperation.
    """
    left = {path_key(path): path for path in paths}
    for found in ReferenceWalk().new_batches(table):
        for key in path_keys(found.paths):
            left.pop(key, None)
    return list(left.values())


class ReachableSet:
    """Everything that a table references, for asking whether a path is among it, however it is spelled."""

    def __init__(self, table: Table) -> None:
        self._files: dict[str, ReachableFile] = {}
        for found in ReferenceWalk().new_batches(table):
            self._files.update(zip(path_keys(found.paths), found.files(), strict=True))

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
