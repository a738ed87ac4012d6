"""Puts candidates into groups that are worth rewriting. Over columns: Python's loops are too slow for millions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from airflow_provider_floe.iceberg.candidate_rows import CandidateColumns, Ints, Longs
from airflow_provider_floe.iceberg.candidates import LARGE, MARKED, PRESSING, SMALL, Candidates
from airflow_provider_floe.iceberg.deletes import Place

FEW_FILES = 5
"""Below this many files, a group that is far from a full file and holds a big one waits for company."""
MOST_FILES = 100_000
"""Files of a group: what is known of them is in memory while they are rewritten."""
MOST_RUN_FILES, MOST_RUN_GROUPS = 10_000_000, 100_000
"""What one run rewrites: 8 bytes of memory for each file and some 300 for each group. The rest is for later runs."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GroupColumns:
    """Groups in the order in which to rewrite them.

    :ivar places: spec and partition by number.
    :ivar place: number of each group's place.
    :ivar first: where a group's files begin in ``where``.
    :ivar count: how many they are.
    :ivar size: bytes of them.
    :ivar records: rows of them.
    :ivar files_out: files that a group is expected to become.
    :ivar small: number of the files that are too small.
    :ivar where: of the files of all groups, as in
        :class:`~airflow_provider_floe.iceberg.candidate_rows.CandidateColumns`.
    :ivar left_groups: number of groups that are left for later runs.
    :ivar left_files: number of their files.
    """

    places: Sequence[Place]
    place: Ints
    first: Longs
    count: Longs
    size: Longs
    records: Longs
    files_out: Longs
    small: Longs
    where: Longs
    left_groups: int = 0
    left_files: int = 0

    def __len__(self) -> int:
        return len(self.place)

    def taken(self, order: Any) -> GroupColumns:
        """Some groups, or all of them in another order."""
        return replace(self, **{name: getattr(self, name)[order] for name in _OF_GROUPS})

    def without_rest(self, *, more: int = 0) -> GroupColumns:
        """As many of the first groups as one run rewrites; what they leave is counted.

        :param more: groups to keep beyond those.
        """
        end = int(np.searchsorted(np.cumsum(self.count), MOST_RUN_FILES, side="right"))
        end = max(1, min(end, MOST_RUN_GROUPS)) + more
        if end >= len(self):
            return self
        kept = self.taken(slice(end))
        spans = zip(kept.first.tolist(), kept.count.tolist(), strict=True)
        return replace(
            kept,
            first=np.cumsum(kept.count) - kept.count,
            where=np.concatenate([self.where[first : first + count] for first, count in spans]),
            left_groups=self.left_groups + len(self) - end,
            left_files=self.left_files + int(self.count[end:].sum()),
        )


_OF_GROUPS = ("place", "first", "count", "size", "records", "files_out", "small")


def expected_files(size_bytes: int, target_bytes: int) -> int:
    """Into how many files of even size data is written: none is far below or far above the target."""
    return max(1, int(size_bytes / target_bytes + 0.4))


def group_candidates(candidates: Candidates) -> GroupColumns:
    """The groups that one run rewrites, in the settings' job order; the candidates are used up."""
    settings, places = candidates.rules.settings, tuple(candidates.places)
    moving = np.array([candidates.rules.output_spec_id(spec_id) != spec_id for spec_id, _ in places], dtype=np.bool_)
    target, most_bytes = candidates.rules.target, settings.max_file_group_size_bytes
    found: list[GroupColumns] = []
    for part in candidates.parts():
        found.append(_grouped(part, places, moving, target, most_bytes))
        if _are_many(found):
            # Behind the first group that is too much, none is taken, however small: so that one is kept until the end.
            found = [_joined(found, settings.rewrite_job_order).without_rest(more=1)]
    return _joined(found, settings.rewrite_job_order).without_rest()


def _are_many(found: Sequence[GroupColumns]) -> bool:
    files, groups = sum(len(one.where) for one in found), sum(map(len, found))
    return files > MOST_RUN_FILES * 5 // 4 or groups > MOST_RUN_GROUPS * 2


def _joined(found: list[GroupColumns], job_order: str) -> GroupColumns:
    """Groups of all parts in a job order; the list is used up, so that no file is in memory twice."""
    if len(found) == 1:
        return _in_order(found.pop(), job_order)
    columns: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in found]) for name in _OF_GROUPS}
    starts = np.cumsum([0, *(len(one.where) for one in found)])
    columns["first"] += np.repeat(starts[:-1], [len(one) for one in found])
    where = np.empty(starts[-1], np.int64)
    places, left_groups, left_files = found[0].places, found[0].left_groups, found[0].left_files
    for start in starts[:-1].tolist():
        part = found.pop(0).where
        where[start : start + len(part)] = part
    groups = GroupColumns(places=places, where=where, left_groups=left_groups, left_files=left_files, **columns)
    return _in_order(groups, job_order)


def _grouped(
    part: CandidateColumns, places: Sequence[Place], moving: Bools, target: int, most_bytes: int
) -> GroupColumns:
    columns = _Columns(part.size, part.flags, target, most_bytes)
    chosen, number, count = _chosen(columns, part.place, moving)
    first = np.cumsum(count) - count
    sizes = part.size[chosen]
    size = _sums(sizes, first)
    return GroupColumns(
        places=places,
        place=number,
        first=first,
        count=count,
        size=size,
        records=_sums(part.records[chosen], first),
        files_out=_expected(size, target),
        small=_sums(sizes < SMALL * target, first),
        where=part.where[chosen],
    )


def _in_order(groups: GroupColumns, by: str) -> GroupColumns:
    """Groups in a job order; those that are alike in it stay in theirs."""
    if by == "NONE":
        return groups
    key = groups.size if by.startswith("BYTES") else groups.count
    return groups.taken(np.argsort(-key if by.endswith("DESC") else key, kind="stable"))


@dataclass(frozen=True)
class _Columns:
    """Candidates by partition, and what makes a group of them worth rewriting."""

    size: Longs
    flags: npt.NDArray[np.uint8]
    target: int
    most_bytes: int

    @cached_property
    def pressing(self) -> Bools:
        found: Bools = (self.flags & PRESSING) != 0
        return found

    @cached_property
    def fresh(self) -> Bools:
        found: Bools = (self.flags & MARKED) == 0
        return found

    def makes_progress(self, rows: Any, first: Longs, count: Longs, moves: Any, *, alone: bool) -> Bools:
        """Whether rewriting each group leaves the table better off, by more than the next rewrite would find again.

        :param rows: of all groups, one group after the other.
        :param first: where each group begins in them.
        :param count: how many are its.
        :param moves: the files are written under another spec.
        :param alone: each group holds all candidates of its partition. Only then may it wait for more files to come:
            beside other groups, what they leave behind would count as that company.
        """
        sizes = self.size[rows]
        size, largest = _sums(sizes, first), np.maximum.reduceat(sizes, first)
        fresh, files_out = _sums(self.fresh[rows], first), _expected(size, self.target)
        splits = (files_out > 1) & (largest > LARGE * self.target)
        enough = (count >= FEW_FILES) | (size >= SMALL * self.target) | (largest <= self.target / 2)
        fewer = (files_out < count) & (fresh != 1) & (enough | (not alone))
        wanted: Bools = np.logical_or.reduceat(self.pressing[rows], first) | moves | ((fresh > 0) & (splits | fewer))
        return wanted


def _chosen(columns: _Columns, place: Ints, moving: Bools) -> tuple[Longs, Ints, Longs]:
    """The files of all groups, one group after the other; the partition and the number of files of each group."""
    if not len(place):
        return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64)
    begin = np.concatenate(([0], np.flatnonzero(place[1:] != place[:-1]) + 1))
    length = np.diff(np.append(begin, len(place)))
    number = place[begin]
    # Almost all partitions are one group: those are decided on together.
    whole = ((_sums(columns.size, begin) <= columns.most_bytes) & (length <= MOST_FILES)) | (length == 1)
    good = whole & columns.makes_progress(slice(None), begin, length, moving[number], alone=True)
    rows, groups, counts = [np.flatnonzero(np.repeat(good, length))], [number[good]], [length[good]]
    for one in np.flatnonzero(~whole):
        found = _split(columns, np.arange(begin[one], begin[one] + length[one]), bool(moving[number[one]]))
        rows += found
        groups.append(np.full(len(found), number[one], np.int32))
        counts.append(np.array([len(group) for group in found], np.int64))
    return _by_partition(np.concatenate(rows), np.concatenate(groups), np.concatenate(counts))


def _by_partition(rows: Longs, number: Ints, count: Longs) -> tuple[Longs, Ints, Longs]:
    if not np.any(number[1:] < number[:-1]):
        return rows, number, count
    order = np.argsort(number, kind="stable")
    # The place of each file in its group, behind where its group is to begin now
    shifted = np.cumsum(count[order]) - count[order]
    begin = np.empty_like(shifted)
    begin[order] = shifted
    sorted_rows = np.empty_like(rows)
    sorted_rows[np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(len(rows))] = rows
    return sorted_rows, number[order], count[order]


def _split(columns: _Columns, left: Longs, moves: bool) -> list[Longs]:
    """The groups of a partition that is too large for one."""
    found: list[Longs] = []
    while len(left):
        first = _cuts(columns.size[left], columns.most_bytes)
        ends = np.append(first, len(left))[1:]
        alone = len(first) == 1 and not found
        worth = columns.makes_progress(left, first, ends - first, moves, alone=alone)
        if not worth.any():
            break
        chunks = [left[begin:end] for begin, end in zip(first, ends, strict=True)]
        found += [chunk for chunk, good in zip(chunks, worth, strict=True) if good]
        # Files between which others were taken are neighbours now, as they will be for the next rewrite.
        left = left[np.repeat(~worth, ends - first)]
    return found


def _cuts(sizes: Longs, most_bytes: int) -> Longs:
    """Where consecutive files are cut into chunks of bounded size and number; a larger file stands alone."""
    reached = np.cumsum(sizes)
    cuts = []
    begin, done = 0, 0
    while begin < len(sizes):
        cuts.append(begin)
        end = int(np.searchsorted(reached, done + most_bytes, side="right"))
        begin = min(max(end, begin + 1), begin + MOST_FILES)
        done = int(reached[begin - 1])
    return np.array(cuts, np.int64)


def _expected(size: Longs, target: int) -> Longs:
    """:func:`expected_files` of each."""
    found: Longs = np.maximum(1, (size / target + 0.4).astype(np.int64))
    return found


def _sums(values: npt.NDArray[Any], first: Longs) -> Longs:
    if not len(first):
        return np.empty(0, np.int64)
    found: Longs = np.add.reduceat(values, first, dtype=np.int64)
    return found
