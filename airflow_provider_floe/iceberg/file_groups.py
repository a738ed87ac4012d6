"""Groups of files that are rewritten together: columns in memory, files only while they are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile

from airflow_provider_floe.iceberg.candidate_rows import Ints, Longs
from airflow_provider_floe.iceberg.deletes import DeleteIndex, Reach
from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.grouping import GroupColumns
from airflow_provider_floe.iceberg.lots import lots
from airflow_provider_floe.iceberg.manifests import data_file, data_rows, read_ahead
from airflow_provider_floe.text import count_text

MOST_OPEN_FILES = 200_000
"""Files of groups that are opened together, about 0.5 kB each: their manifests are read once for all of them."""


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of one partition that are rewritten together.

    :ivar output_spec_id: partition spec of the files to write.
    :ivar files_out: how many files are expected.
    :ivar deletes: the delete files that may remove rows of the group's files.
    :ivar number: of the group in its selection.
    """

    spec_id: int
    partition: tuple[Any, ...]
    output_spec_id: int
    files: Sequence[LiveFile]
    files_out: int
    deletes: tuple[LiveFile, ...] = ()
    number: int = -1

    @property
    def moves(self) -> bool:
        """Whether the files are written under another spec than they have."""
        return self.spec_id != self.output_spec_id

    @property
    def size_bytes(self) -> int:
        """Size of the files that are read."""
        if isinstance(self.files, StoredFiles):
            return self.files.size_bytes
        return sum(file.file_size_bytes for file in self.files)


class FileSource(Protocol):
    """Where the files of groups are looked up."""

    def load(self, where: Longs) -> Iterable[LiveFile]:
        """The files that stand at these places, which are given in ascending order."""
        ...


class ListedFiles:
    """Files at hand, by their places among them."""

    def __init__(self, files: Sequence[LiveFile]) -> None:
        self._files = files

    def load(self, where: Longs) -> Iterable[LiveFile]:
        """See :class:`FileSource`."""
        return (self._files[place] for place in where.tolist())


class StandingFiles(NamedTuple):
    """Files that stand in one manifest.

    :ivar positions: their places among its live files, ascending.
    :ivar groups: number of the group of each.
    """

    manifest: ManifestFile
    positions: Ints
    groups: Ints


class ManifestFiles:
    """Files of manifests, which are read again unless their files were kept.

    :param kept: files that were kept by where they stand; None when there were too many.
    """

    def __init__(self, io: FileIO, manifests: Sequence[ManifestFile], kept: Mapping[int, LiveFile] | None) -> None:
        self._io = io
        self._manifests = manifests
        self._kept = kept

    def load(self, where: Longs) -> Iterator[LiveFile]:
        """See :class:`FileSource`."""
        if self._kept is not None:
            yield from (self._kept[place] for place in where.tolist())
            return
        parts = list(self.parts(where))
        for (manifest, data), (_, part) in zip(read_ahead(self._io, [one for one, _ in parts]), parts, strict=True):
            rows = list(data_rows(manifest, data))
            for place in where[part].tolist():
                yield data_file(manifest.partition_spec_id, rows[place & _POSITION], manifest.manifest_path)

    def parts(self, where: Longs) -> Iterator[tuple[ManifestFile, slice]]:
        """The manifests of places in ascending order, and which of the places are in each."""
        numbers = where >> _BITS
        ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(where)] if len(where) else []
        for begin, end in pairwise([0, *ends]):
            yield self._manifests[int(numbers[begin])], slice(begin, end)


_BITS = 32
_POSITION = (1 << _BITS) - 1


def place_in(manifest_number: int, position: int) -> int:
    """Where a file stands, in one number."""
    return manifest_number << _BITS | position


class FileGroups(Sequence[FileGroup]):
    """Groups whose files are looked up when a group is asked for, and forgotten with it.

    :ivar columns: what is known of the groups without their files; those of the selection that this is a part of.
    """

    def __init__(
        self,
        columns: GroupColumns,
        source: FileSource,
        deletes: DeleteIndex,
        output_spec_id: Callable[[int], int],
        numbers: range | None = None,
    ) -> None:
        self.columns = columns
        self._source = source
        self._deletes = deletes
        self._output_spec_id = output_spec_id
        self._numbers = range(len(columns)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> FileGroup: ...
    @overload
    def __getitem__(self, index: slice) -> FileGroups: ...
    def __getitem__(self, index: int | slice) -> FileGroup | FileGroups:
        if isinstance(index, slice):
            return self._part(self._numbers[index])
        return self._part(range(self._numbers[index], self._numbers[index] + 1))._open()[0]

    def __iter__(self) -> Iterator[FileGroup]:
        for part in self.windows():
            yield from part._open()

    @property
    def file_count(self) -> int:
        """Files of all groups."""
        return int(self.columns.count[self._slice].sum())

    @property
    def size_bytes(self) -> int:
        """Bytes of all groups."""
        return int(self.columns.size[self._slice].sum())

    @property
    def record_count(self) -> int:
        """Rows of all groups."""
        return int(self.columns.records[self._slice].sum())

    @property
    def left_text(self) -> str:
        """What is left for later runs, for people; empty where nothing is."""
        files, groups = self.columns.left_files, self.columns.left_groups
        if not groups:
            return ""
        return f"{count_text(files, 'more data file')} of {count_text(groups, 'file group')} left for the next run"

    def windows(self, most_groups: int | None = None) -> Iterator[FileGroups]:
        """Consecutive groups that are opened together: of a bounded number of files, or a single group.

        :param most_groups: to open together, at least one; default: any number.
        """
        for numbers in lots(self.columns.count[self._slice], MOST_OPEN_FILES, most_groups):
            yield self[numbers.start : numbers.stop]

    def files(self) -> Iterator[LiveFile]:
        """The files of all groups, in the order of their manifests."""
        yield from self._source.load(np.sort(self._where(np.asarray(self._numbers, np.int64))))

    def reached_by(self) -> list[LiveFile]:
        """The delete files that may remove rows of the groups' files, each once."""
        reach = Reach(self._deletes)
        if self._deletes:
            for file in self.files():
                reach.add(file)
        return reach.found()

    def standing(self, numbers: Sequence[int]) -> Iterator[StandingFiles]:
        """Where the files of some groups stand, by these groups' numbers in the selection."""
        if not isinstance(self._source, ManifestFiles):
            raise TypeError("files that were listed stand nowhere")
        columns = self.columns
        chosen = np.asarray(numbers, np.int64)
        where = np.concatenate(
            [columns.where[first : first + count] for first, count in self._spans(chosen)] or [_NONE]
        )
        order = np.argsort(where)
        where = where[order]
        groups = np.repeat(chosen.astype(np.int32), columns.count[chosen])[order]
        del order
        for manifest, part in self._source.parts(where):
            yield StandingFiles(manifest, (where[part] & _POSITION).astype(np.int32), groups[part])

    def closed(self, group: FileGroup) -> FileGroup:
        """A group of these that does not hold its files any more; they are read again when they are asked for."""
        return replace(group, files=StoredFiles(self, group.number))

    def _part(self, numbers: range) -> FileGroups:
        return FileGroups(self.columns, self._source, self._deletes, self._output_spec_id, numbers)

    @property
    def _slice(self) -> slice:
        return slice(self._numbers.start, self._numbers.stop)

    def _spans(self, numbers: Longs) -> Iterator[tuple[int, int]]:
        return zip(self.columns.first[numbers].tolist(), self.columns.count[numbers].tolist(), strict=True)

    def _where(self, numbers: Longs) -> Longs:
        spans = self._spans(numbers)
        return np.concatenate([self.columns.where[first : first + count] for first, count in spans] or [_NONE])

    def _open(self) -> list[FileGroup]:
        where = self._where(np.asarray(self._numbers, np.int64))
        order = np.argsort(where)
        files: list[LiveFile | None] = [None] * len(where)
        for place, file in zip(order.tolist(), self._source.load(where[order]), strict=True):
            files[place] = file
        found, begin = [], 0
        for number in self._numbers:
            end = begin + int(self.columns.count[number])
            spec_id, partition = self.columns.places[self.columns.place[number]]
            members = tuple(file for file in files[begin:end] if file is not None)
            found.append(
                FileGroup(
                    spec_id=spec_id,
                    partition=partition,
                    output_spec_id=self._output_spec_id(spec_id),
                    files=members,
                    files_out=int(self.columns.files_out[number]),
                    deletes=tuple(self._deletes.of_all(members)) if self._deletes else (),
                    number=number,
                )
            )
            begin = end
        return found


_NONE = np.empty(0, np.int64)


class StoredFiles(Sequence[LiveFile]):
    """The files of a group that was worked on: read from their manifests again whenever they are asked for."""

    def __init__(self, groups: FileGroups, number: int) -> None:
        self._groups = groups
        self._number = number
        self.size_bytes = int(groups.columns.size[number])

    def __len__(self) -> int:
        return int(self._groups.columns.count[self._number])

    def __iter__(self) -> Iterator[LiveFile]:
        return iter(self._files())

    @overload
    def __getitem__(self, index: int) -> LiveFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LiveFile]: ...
    def __getitem__(self, index: int | slice) -> LiveFile | Sequence[LiveFile]:
        return self._files()[index]

    def _files(self) -> Sequence[LiveFile]:
        return self._groups._part(range(self._number, self._number + 1))._open()[0].files
