"""Data files that something is wrong with, in columns: a table may have so many that most of them wait on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.iceberg.candidate_rows import CandidateColumns, SpilledCandidates
from airflow_provider_floe.iceberg.deletes import DeleteIndex, Place
from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.manifests import DataRow, data_file
from airflow_provider_floe.policies.model import RewriteDataFiles

SMALL, LARGE = 0.75, 1.8
"""Files below or above these shares of the target are candidates."""

MARKED, PRESSING = 1, 2
"""Flags of a candidate: a rewrite with these settings wrote it; it is to be rewritten whatever the company."""

MOST_IN_MEMORY = 500_000
"""Candidates from which on they wait on disk; 29 bytes each, and a few times that while they are put into groups."""


@dataclass(frozen=True)
class FileRules:
    """What is wrong with a file, for one table and one policy.

    :ivar mark: what the names of files begin with that a rewrite with these settings wrote.
    :ivar marked: snapshots whose files were written with the settings of the mark.
    """

    metadata: TableMetadata
    settings: RewriteDataFiles
    target: int
    mark: str
    marked: frozenset[int]
    deletes: DeleteIndex

    def has_deletes(self, file: LiveFile) -> bool:
        """Whether so many delete files reach a file that they are to be applied."""
        if self.settings.delete_file_threshold == 1:
            return self.deletes.touches(file)
        return len(self.deletes.of(file)) >= self.settings.delete_file_threshold

    def is_clustered(self, path: str, snapshot_id: int | None, sort_order_id: int | None) -> bool:
        """Whether a file's rows are known to follow the order that the settings ask for, where they ask for one."""
        if self.settings.strategy == "BINPACK" or self.is_marked(path, snapshot_id):
            return True
        return self._table_order is not None and sort_order_id == self._table_order

    def is_marked(self, path: str, snapshot_id: int | None) -> bool:
        """Whether a rewrite with these settings wrote the file."""
        # Object store layouts may put a hash before the name
        return self.mark in path.rpartition("/")[2] or snapshot_id in self.marked

    def output_spec_id(self, spec_id: int) -> int:
        """The partition spec that the rows of a file under a spec are to have."""
        return spec_id if self.settings.output_spec_id is None else self.settings.output_spec_id

    @cached_property
    def _table_order(self) -> int | None:
        """Id of the table's own sort order, where it is the one that is asked for."""
        order = self.metadata.sort_order()
        wanted = self.settings.strategy == "SORT" and not self.settings.sort_order and order.fields
        return order.order_id if wanted else None


class Candidates:
    """Collects the candidates among the files that it is shown, in their order.

    :ivar places: spec and partition of the candidates, numbered as they came.
    """

    def __init__(self, rules: FileRules) -> None:
        self.rules = rules
        self.places: dict[Place, int] = {}
        self._spilled: SpilledCandidates | None = None
        self._small, self._large = SMALL * rules.target, LARGE * rules.target
        self._any_order = rules.settings.strategy == "BINPACK"
        self._no_deletes = not rules.deletes
        self._begin()

    def add(self, spec_id: int, row: DataRow, where: int) -> bool:
        """Take a file in if something is wrong with it; returns whether it was.

        :param where: see :class:`~airflow_provider_floe.iceberg.candidate_rows.CandidateColumns`.
        """
        path, _, partition, records, size, _, snapshot_id, sort_order_id, _, _ = row
        rules = self.rules
        pressing = not (self._any_order or rules.is_clustered(path, snapshot_id, sort_order_id))
        if not pressing and not self._no_deletes and rules.deletes.may_touch(path, (spec_id, partition)):
            pressing = rules.has_deletes(data_file(spec_id, row))
        if not pressing and self._small <= size <= self._large and rules.output_spec_id(spec_id) == spec_id:
            return False
        marked = MARKED if rules.is_marked(path, snapshot_id) else 0
        self._size.append(size)
        self._records.append(records)
        self._where.append(where)
        self._place.append(self.places.setdefault((spec_id, partition), len(self.places)))
        self._flags.append(marked | (PRESSING if pressing else 0))
        if len(self._size) >= MOST_IN_MEMORY:
            self._spill()
        return True

    def parts(self) -> Iterator[CandidateColumns]:
        """The candidates by their partitions' numbers, those of a partition together; they are used up.

        There are never more than :data:`MOST_IN_MEMORY` at a time: only of a partition that has more of them the
        candidates come in several parts.
        """
        if self._spilled is None:
            yield self._columns().by_place()
            return
        self._spill()
        self._begin()
        yield from self._spilled.parts(MOST_IN_MEMORY)

    def _begin(self) -> None:
        self._size, self._records, self._where = array("q"), array("q"), array("q")
        self._place = array("i")
        self._flags = array("B")

    def _spill(self) -> None:
        self._spilled = self._spilled or SpilledCandidates()
        self._spilled.add(self._columns())
        self._begin()

    def _columns(self) -> CandidateColumns:
        """The candidates in memory, without a copy."""
        return CandidateColumns(
            size=_column(self._size, np.int64),
            records=_column(self._records, np.int64),
            where=_column(self._where, np.int64),
            place=_column(self._place, np.int32),
            flags=_column(self._flags, np.uint8),
        )


def _column(values: array[int], kind: Any) -> npt.NDArray[Any]:
    return np.frombuffer(values, kind) if values else np.empty(0, kind)
