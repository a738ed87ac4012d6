"""What the manifests say of a table's files, summed up. Manifests never change, so their sums are kept."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile

from airflow_provider_floe.iceberg.avro import Projection, read_rows
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifests import DELETED, read_ahead

PartitionKey = tuple[int, tuple[Any, ...]]
"""Spec id and partition tuple."""

_STATUS, _CONTENT, _FORMAT, _PARTITION, _RECORDS, _SIZE = 0, 134, 101, 102, 103, 104
_LENGTH = 145
_PROJECTION = Projection(
    (_STATUS, _CONTENT, _FORMAT, _PARTITION, _RECORDS, _SIZE, _LENGTH),
    frozenset((_STATUS, _FORMAT, _PARTITION, _RECORDS, _SIZE)),
)
_CACHED_FILES = 2_000_000


@dataclass(frozen=True, slots=True)
class Totals:
    """Number, bytes and records of some files."""

    files: int = 0
    size_bytes: int = 0
    records: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.files + other.files, self.size_bytes + other.size_bytes, self.records + other.records)


@dataclass(frozen=True, slots=True)
class FileAggregate:
    """Sums over live files of one or many manifests.

    :ivar partitions: data files by partition.
    :ivar deletes: delete files of all kinds by partition.
    :ivar sizes: sizes in bytes of the data files; each array, one for each manifest, ascending and not empty.
    :ivar position_deletes: position delete files; deletion vectors are not among them.
    :ivar data_formats: formats of data files, upper case.
    """

    partitions: Mapping[PartitionKey, Totals] = field(default_factory=dict)
    deletes: Mapping[PartitionKey, Totals] = field(default_factory=dict)
    sizes: tuple[array[int], ...] = ()
    data: Totals = Totals()
    position_deletes: Totals = Totals()
    equality_deletes: Totals = Totals()
    deletion_vectors: Totals = Totals()
    data_formats: frozenset[str] = frozenset()

    @property
    def delete_files(self) -> int:
        """Delete files and deletion vectors together."""
        return self.position_deletes.files + self.equality_deletes.files + self.deletion_vectors.files

    @property
    def min_size(self) -> int | None:
        """Size of the smallest data file in bytes; None without files."""
        return min((sizes[0] for sizes in self.sizes), default=None)

    @property
    def max_size(self) -> int | None:
        """Size of the largest data file in bytes; None without files."""
        return max((sizes[-1] for sizes in self.sizes), default=None)

    def below(self, size_bytes: int) -> int:
        """Number of data files smaller than a size."""
        return sum(bisect_left(sizes, size_bytes) for sizes in self.sizes)

    def above(self, size_bytes: int) -> int:
        """Number of data files larger than a size."""
        return sum(len(sizes) - bisect_right(sizes, size_bytes) for sizes in self.sizes)

    def histogram(self) -> dict[int, int]:
        """Number of data files by floor(log2(bytes)); empty files count under 0."""
        counts: Counter[int] = Counter()
        for sizes in self.sizes:
            begin = 0
            while begin < len(sizes):
                power = max(sizes[begin].bit_length() - 1, 0)
                end = bisect_left(sizes, 2 ** (power + 1), begin)
                counts[power] += end - begin
                begin = end
        return dict(sorted(counts.items()))


class _Sums:
    """Collects files one by one; a list of three numbers is far cheaper to count up than a frozen object."""

    def __init__(self) -> None:
        self.partitions: dict[PartitionKey, list[int]] = {}
        self.deletes: dict[PartitionKey, list[int]] = {}
        self.kinds = {kind: [0, 0, 0] for kind in ("data", "position", "equality", "vector")}
        self.sizes = array("q")
        self.formats: set[str] = set()

    def add(self, content: int, file_format: str, key: PartitionKey, records: int, size: int) -> None:
        if content == FileContent.DATA:
            kind, partitions = "data", self.partitions
            self.sizes.append(size)
            self.formats.add(file_format.upper())
        else:
            partitions = self.deletes
            if content == FileContent.EQUALITY_DELETES:
                kind = "equality"
            else:
                kind = "vector" if file_format.upper() == "PUFFIN" else "position"
        for sums in (self.kinds[kind], partitions.setdefault(key, [0, 0, 0])):
            sums[0] += 1
            sums[1] += size
            sums[2] += records

    def done(self) -> FileAggregate:
        return FileAggregate(
            partitions={key: Totals(*sums) for key, sums in self.partitions.items()},
            deletes={key: Totals(*sums) for key, sums in self.deletes.items()},
            sizes=(array("q", sorted(self.sizes)),) if self.sizes else (),
            data=Totals(*self.kinds["data"]),
            position_deletes=Totals(*self.kinds["position"]),
            equality_deletes=Totals(*self.kinds["equality"]),
            deletion_vectors=Totals(*self.kinds["vector"]),
            data_formats=frozenset(self.formats),
        )


def aggregate_files(files: Iterable[LiveFile]) -> FileAggregate:
    """Sum up files that are at hand."""
    sums = _Sums()
    for file in files:
        key = (file.spec_id, file.partition)
        sums.add(file.content, file.file_format, key, file.record_count, file.stored_bytes)
    return sums.done()


def aggregate_manifests(io: FileIO, manifests: Sequence[ManifestFile]) -> FileAggregate:
    """Sum up the live files of manifests; those met before, in this process, are not opened again.

    :raises TableUnreadable: naming the manifest that is missing, damaged or not as Iceberg prescribes.
    """
    known = {manifest.manifest_path: _cache.get(manifest) for manifest in manifests}
    for manifest, data in read_ahead(io, [m for m in manifests if known[m.manifest_path] is None]):
        aggregate = _decode(manifest, data)
        _cache.put(manifest, aggregate)
        known[manifest.manifest_path] = aggregate
    return merge([aggregate for aggregate in known.values() if aggregate is not None])


def merge(aggregates: Sequence[FileAggregate]) -> FileAggregate:
    """The sums over all of them together."""
    if len(aggregates) == 1:
        return aggregates[0]
    return FileAggregate(
        partitions=_merge_partitions(aggregate.partitions for aggregate in aggregates),
        deletes=_merge_partitions(aggregate.deletes for aggregate in aggregates),
        sizes=tuple(sizes for aggregate in aggregates for sizes in aggregate.sizes),
        data=sum((aggregate.data for aggregate in aggregates), Totals()),
        position_deletes=sum((aggregate.position_deletes for aggregate in aggregates), Totals()),
        equality_deletes=sum((aggregate.equality_deletes for aggregate in aggregates), Totals()),
        deletion_vectors=sum((aggregate.deletion_vectors for aggregate in aggregates), Totals()),
        data_formats=frozenset().union(*(aggregate.data_formats for aggregate in aggregates)),
    )


def sample_manifests(manifests: Sequence[ManifestFile], max_files: int, seed: int) -> list[ManifestFile]:
    """Manifests drawn at random until they hold about ``max_files`` files, at least one; the same for the same seed."""
    drawn: list[ManifestFile] = []
    files = 0
    for manifest in Random(seed).sample(manifests, len(manifests)):
        count = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
        if drawn and files + count > max_files:
            break
        drawn.append(manifest)
        files += count
    return drawn


def _decode(manifest: ManifestFile, data: bytes) -> FileAggregate:
    sums = _Sums()
    for status, content, file_format, partition, records, size, length in read_rows(
        data, _PROJECTION, manifest.manifest_path
    ):
        if status != DELETED:
            # a deletion vector is a part of its Puffin file
            own = size if length is None else length
            sums.add(content or 0, file_format, (manifest.partition_spec_id, partition), records, own)
    return sums.done()


def _merge_partitions(parts: Iterable[Mapping[PartitionKey, Totals]]) -> dict[PartitionKey, Totals]:
    merged: dict[PartitionKey, Totals] = {}
    for part in parts:
        for key, totals in part.items():
            merged[key] = merged[key] + totals if key in merged else totals
    return merged


class _Cache:
    """Aggregates by manifest path and length, least recently used out first, bounded by the files they cover."""

    def __init__(self, max_files: int) -> None:
        self._max_files = max_files
        self._files = 0
        self._entries: OrderedDict[tuple[str, int], FileAggregate] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, manifest: ManifestFile) -> FileAggregate | None:
        with self._lock:
            key = (manifest.manifest_path, manifest.manifest_length)
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, manifest: ManifestFile, aggregate: FileAggregate) -> None:
        with self._lock:
            key = (manifest.manifest_path, manifest.manifest_length)
            if key in self._entries:
                return
            self._entries[key] = aggregate
            self._files += _weight(aggregate)
            while self._files > self._max_files and len(self._entries) > 1:
                self._files -= _weight(self._entries.popitem(last=False)[1])


def _weight(aggregate: FileAggregate) -> int:
    return 1 + aggregate.data.files + aggregate.delete_files


_cache = _Cache(_CACHED_FILES)
