"""Which delete files apply to which data files. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import VoidTransform

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.files import FileContent, LiveFile

Place = tuple[int, tuple[Any, ...]]
"""Spec id and partition."""


class DeleteIndex:
    """Delete files, looked up by data file.

    Iceberg's rules: an equality delete applies to older data only (sequence number lower), a position delete to data
    up to its own. Either reaches its partition; an equality delete under an unpartitioned spec reaches the whole
    table, a position delete that names one file only that one. A position delete also cannot name a file that was
    written after it: rewritten files keep an old data sequence number, so their file sequence number is asked. A
    spec that has only void fields left partitions nothing. A deletion vector stands for all position deletes of its
    data file: where there is one, no other is asked.

    :raises TableUnreadable: when a data file has two deletion vectors.
    """

    def __init__(self, metadata: TableMetadata, deletes: Iterable[LiveFile]) -> None:
        unpartitioned = {
            spec_id
            for spec_id, spec in metadata.specs().items()
            if all(isinstance(field.transform, VoidTransform) for field in spec.fields)
        }
        self._vectors: dict[str, LiveFile] = {}
        self._by_path: defaultdict[str, list[LiveFile]] = defaultdict(list)
        self._by_partition: defaultdict[Place, list[LiveFile]] = defaultdict(list)
        self._equality: defaultdict[Place, list[LiveFile]] = defaultdict(list)
        self._everywhere: list[LiveFile] = []
        for delete in sorted(deletes, key=_sequence_number):
            if delete.content is FileContent.EQUALITY_DELETES:
                if delete.spec_id in unpartitioned:
                    self._everywhere.append(delete)
                else:
                    self._equality[delete.spec_id, delete.partition].append(delete)
            elif delete.is_deletion_vector:
                self._add_vector(delete)
            elif delete.content is FileContent.POSITION_DELETES:
                if delete.referenced_data_file is not None:
                    self._by_path[delete.referenced_data_file].append(delete)
                else:
                    self._by_partition[delete.spec_id, delete.partition].append(delete)

    def _add_vector(self, vector: LiveFile) -> None:
        name = vector.referenced_data_file
        if name is None:
            raise TableUnreadable(f"a deletion vector in {vector.path} does not say which data file it is for")
        known = self._vectors.setdefault(name, vector)
        if known is not vector:
            raise TableUnreadable(
                f"data file {name} has two deletion vectors, in {known.path} and {vector.path}: "
                "which of them holds cannot be told"
            )

    def vector_of(self, data: LiveFile) -> LiveFile | None:
        """The deletion vector of a data file, if it has one."""
        vector = self._vectors.get(data.path)
        return vector if vector is not None and vector.sequence_number >= data.sequence_number else None

    def of(self, data: LiveFile) -> list[LiveFile]:
        """The delete files that may remove rows of a data file."""
        return [delete for found, first in self._reaching(data) for delete in found[first:]]

    def of_all(self, data: Iterable[LiveFile]) -> list[LiveFile]:
        """The delete files that may remove rows of any of the data files, each once."""
        reach = Reach(self)
        for file in data:
            reach.add(file)
        return reach.found()

    def __bool__(self) -> bool:
        return bool(self._everywhere or self._by_partition or self._equality or self._by_path or self._vectors)

    def may_touch(self, path: str, place: Place) -> bool:
        """Whether delete files are known for a data file or its partition, whatever their sequence numbers; cheap."""
        return (
            bool(self._everywhere)
            or place in self._by_partition
            or place in self._equality
            or path in self._by_path
            or path in self._vectors
        )

    def touches(self, data: LiveFile) -> bool:
        """Whether any delete file may remove rows of a data file."""
        return any(first < len(found) for found, first in self._reaching(data))

    def _reaching(self, data: LiveFile) -> Iterator[tuple[list[LiveFile], int]]:
        """Delete files in order of their sequence numbers, and from which of them on they apply."""
        place = (data.spec_id, data.partition)
        vector = self.vector_of(data)
        if vector is not None:
            yield [vector], 0
        else:
            for found in (self._by_path.get(data.path), self._by_partition.get(place)):
                if found:
                    yield found, bisect_left(found, written_in(data), key=_sequence_number)
        for found in (self._everywhere, self._equality.get(place)):
            if found:
                yield found, bisect_right(found, data.sequence_number, key=_sequence_number)


class Reach:
    """The delete files that may remove rows of some of the data files that it is shown, of which it keeps none.

    Within a partition, what reaches the oldest file reaches all that the others are reached by; files under a deletion
    vector are apart from those that position deletes may reach.
    """

    def __init__(self, index: DeleteIndex) -> None:
        self._index = index
        self._found: dict[str, LiveFile] = {}
        self._written: dict[Place, int] = {}
        self._sequences: dict[Place, int] = {}
        self._oldest: int | None = None

    def add(self, file: LiveFile) -> None:
        """Take a data file into account."""
        index, place, sequence = self._index, (file.spec_id, file.partition), file.sequence_number
        vector = index.vector_of(file)
        if vector is not None:
            self._found[vector.key] = vector
        else:
            written = written_in(file)
            self._take(index._by_path.get(file.path, ()), written)
            if place in index._by_partition:
                self._written[place] = min(written, self._written.get(place, written))
        if place in index._equality:
            self._sequences[place] = min(sequence, self._sequences.get(place, sequence))
        if index._everywhere:
            self._oldest = sequence if self._oldest is None else min(sequence, self._oldest)

    def found(self) -> list[LiveFile]:
        """The delete files, each once."""
        for place, written in self._written.items():
            self._take(self._index._by_partition[place], written)
        for place, sequence in self._sequences.items():
            self._take(self._index._equality[place], sequence + 1)
        if self._oldest is not None:
            self._take(self._index._everywhere, self._oldest + 1)
        return list(self._found.values())

    def _take(self, deletes: Sequence[LiveFile], least: int) -> None:
        for delete in deletes[bisect_left(deletes, least, key=_sequence_number) :]:
            self._found[delete.key] = delete


def written_in(data: LiveFile) -> int:
    """Sequence number of the commit that wrote a data file: older position deletes cannot name it."""
    return max(data.sequence_number, data.file_sequence_number or 0)


def _sequence_number(file: LiveFile) -> int:
    return file.sequence_number


def needed_deletes(index: DeleteIndex, data: Iterable[LiveFile]) -> set[str]:
    """Keys of the delete files that may still remove rows of some of the data files."""
    return {delete.key for delete in index.of_all(data)}
