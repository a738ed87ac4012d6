"""The selection over columns chooses what a plain one over files chooses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest
from harness.tables import BY_PART, SCHEMA
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform

from airflow_provider_floe.iceberg import candidates, grouping, selection
from airflow_provider_floe.iceberg.deletes import DeleteIndex
from airflow_provider_floe.iceberg.file_groups import FileGroups
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.selection import expected_files, rewrite_mark, select_rewrite
from airflow_provider_floe.policies.model import RewriteDataFiles

TARGET = 1000
SORTED = SortOrder(SortField(1, IdentityTransform()), order_id=7)


def metadata(order: SortOrder) -> TableMetadata:
    return new_table_metadata(SCHEMA, BY_PART, order, "file:///table", {"format-version": "2"})


@dataclass
class Plain:
    """The rules, file by file."""

    metadata: TableMetadata
    settings: RewriteDataFiles
    files: Sequence[LiveFile]
    most_files: int
    most_in_memory: int = 1_000_000

    def __post_init__(self) -> None:
        self.mark = rewrite_mark(self.metadata, self.settings)
        self.deletes = DeleteIndex(self.metadata, (one for one in self.files if one.content is not FileContent.DATA))

    def groups(self) -> list[list[LiveFile]]:
        places = defaultdict(list)
        for file in self.files:
            if file.content is FileContent.DATA and self.is_candidate(file):
                places[file.spec_id, file.partition].append(file)
        parts = [
            members[begin : begin + self.most_in_memory]
            for members in places.values()
            for begin in range(0, len(members), self.most_in_memory)
        ]
        found = [group for part in parts for group in self.of_partition(part)]
        order = self.settings.rewrite_job_order
        if order == "NONE":
            return found
        key = size_of if order.startswith("BYTES") else len
        return sorted(found, key=key, reverse=order.endswith("DESC"))

    def of_partition(self, left: list[LiveFile]) -> list[list[LiveFile]]:
        found: list[list[LiveFile]] = []
        while left:
            chunks = self.chunks(left)
            alone = len(chunks) == 1 and not found
            worth = [self.makes_progress(chunk, alone) for chunk in chunks]
            if not any(worth):
                break
            found += [chunk for chunk, good in zip(chunks, worth, strict=True) if good]
            left = [file for chunk, good in zip(chunks, worth, strict=True) if not good for file in chunk]
        return found

    def chunks(self, files: list[LiveFile]) -> list[list[LiveFile]]:
        found: list[list[LiveFile]] = []
        for file in files:
            full = not found or len(found[-1]) == self.most_files
            if full or size_of([*found[-1], file]) > self.settings.max_file_group_size_bytes:
                found.append([])
            found[-1].append(file)
        return found

    def is_candidate(self, file: LiveFile) -> bool:
        good_size = 0.75 * TARGET <= file.file_size_bytes <= 1.8 * TARGET
        return not good_size or self.moves(file) or self.is_pressing(file)

    def moves(self, file: LiveFile) -> bool:
        return self.settings.output_spec_id not in (None, file.spec_id)

    def is_pressing(self, file: LiveFile) -> bool:
        return not self.is_clustered(file) or len(self.deletes.of(file)) >= self.settings.delete_file_threshold

    def is_clustered(self, file: LiveFile) -> bool:
        if self.settings.strategy == "BINPACK" or self.is_marked(file):
            return True
        order = self.metadata.sort_order()
        by_table = self.settings.strategy == "SORT" and not self.settings.sort_order
        return by_table and bool(order.fields) and file.sort_order_id == order.order_id

    def is_marked(self, file: LiveFile) -> bool:
        return self.mark in file.path.rpartition("/")[2]

    def makes_progress(self, files: list[LiveFile], alone: bool) -> bool:
        if any(self.moves(file) or self.is_pressing(file) for file in files):
            return True
        fresh = sum(not self.is_marked(file) for file in files)
        size, largest = size_of(files), max(file.file_size_bytes for file in files)
        files_out = expected_files(size, TARGET)
        if fresh == 0:
            return False
        if files_out > 1 and largest > 1.8 * TARGET:
            return True
        if files_out >= len(files) or fresh == 1:
            return False
        return len(files) >= 5 or size >= 0.75 * TARGET or largest <= TARGET / 2 or not alone


def size_of(files: Sequence[LiveFile]) -> int:
    return sum(file.file_size_bytes for file in files)


SIZES = st.one_of(
    st.integers(0, 100), st.sampled_from([500, 501, 600, 749, 750, 1000, 1800, 1801]), st.integers(0, 3000)
)
"""In bytes, those where a rule turns among them."""


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[LiveFile], dict[str, Any]]:
    wanted: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {
                "strategy": st.sampled_from(["BINPACK", "BINPACK", "SORT", "ZORDER"]),
                "max_file_group_size_bytes": st.sampled_from([300, 1000, 1500, 5000, 10**9]),
                "rewrite_job_order": st.sampled_from(["NONE", "BYTES_ASC", "BYTES_DESC", "FILES_ASC", "FILES_DESC"]),
                "delete_file_threshold": st.integers(1, 2),
                "output_spec_id": st.sampled_from([None, None, 0, 1]),
            }
        )
    )
    if wanted["strategy"] == "ZORDER":
        wanted["z_order_columns"] = ["id"]
    places = draw(st.sampled_from([[(0, "a")], [(0, "a"), (0, "b")], [(0, "a"), (0, "b"), (0, None), (1, "a")]]))
    size = draw(st.sampled_from([SIZES, st.sampled_from([10, 600])]))
    mark = rewrite_mark(metadata(SORTED), RewriteDataFiles(target_file_size_bytes=TARGET, **wanted))
    files = [
        LiveFile(
            path=f"file:///table/data/{mark + '-' if draw(st.booleans()) else ''}{number}.parquet",
            content=FileContent.DATA,
            file_format="PARQUET",
            spec_id=spec_id,
            partition=(part,),
            record_count=number,
            file_size_bytes=draw(size),
            sequence_number=draw(st.integers(1, 4)),
            file_sequence_number=draw(st.sampled_from([None, 2, 5])),
            sort_order_id=draw(st.sampled_from([None, 7])),
        )
        for number, (spec_id, part) in enumerate(draw(st.lists(st.sampled_from(places), max_size=20)))
    ]
    deletes = [
        LiveFile(
            path=f"file:///table/data/delete-{number}.parquet",
            content=draw(st.sampled_from([FileContent.POSITION_DELETES, FileContent.EQUALITY_DELETES])),
            file_format="PARQUET",
            spec_id=0,
            partition=(draw(st.sampled_from(["a", "b"])),),
            record_count=1,
            file_size_bytes=10,
            sequence_number=draw(st.integers(1, 5)),
            referenced_data_file=draw(st.sampled_from([None, *(file.path for file in files)])),
        )
        for number in range(draw(st.sampled_from([0, 0, 1, 3])))
    ]
    return [*files, *deletes], wanted


@pytest.mark.property
@settings(max_examples=600, deadline=None)
@given(
    tables(),
    st.sampled_from([1, 2, 4, 100_000]),
    st.sampled_from([1, 3, 7, 1_000_000]),
    st.sampled_from([SORTED, UNSORTED_SORT_ORDER]),
)
def test_columns_choose_what_files_choose(
    table: tuple[list[LiveFile], dict[str, Any]], most_files: int, most_in_memory: int, order: SortOrder
) -> None:
    files, wanted = table
    config = RewriteDataFiles(target_file_size_bytes=TARGET, **wanted)
    plain = Plain(metadata(order), config, files, most_files, most_in_memory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "MOST_FILES", most_files)
        patch.setattr(candidates, "MOST_IN_MEMORY", most_in_memory)
        found = select_rewrite(metadata(order), files, config).groups
    expected = plain.groups()
    assert [list(group.files) for group in found] == expected
    for group in found:
        assert (group.spec_id, group.partition) == (group.files[0].spec_id, group.files[0].partition)
        assert group.files_out == expected_files(group.size_bytes, TARGET)
        reached = {delete.path for file in group.files for delete in plain.deletes.of(file)}
        assert {delete.path for delete in group.deletes} == reached


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(
    tables(),
    st.sampled_from([1, 3, 7, 10_000_000]),
    st.sampled_from([1, 2, 5, 100_000]),
    st.sampled_from([1, 3, 1_000_000]),
)
def test_a_run_takes_the_first_groups_and_counts_the_others(
    table: tuple[list[LiveFile], dict[str, Any]], most_files: int, most_groups: int, most_in_memory: int
) -> None:
    files, wanted = table
    config = RewriteDataFiles(target_file_size_bytes=TARGET, **wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "MOST_IN_MEMORY", most_in_memory)
        everything = groups_of(files, config)
        patch.setattr(grouping, "MOST_RUN_FILES", most_files)
        patch.setattr(grouping, "MOST_RUN_GROUPS", most_groups)
        found = groups_of(files, config)
    taken = [
        number
        for number, reached in enumerate(accumulate(len(group.files) for group in everything))
        if number == 0 or (number < most_groups and reached <= most_files)
    ]
    expected = [everything[number] for number in taken]
    assert [group.files for group in found] == [group.files for group in expected]
    left = everything[len(taken) :]
    assert found.columns.left_groups == len(left)
    assert found.columns.left_files == sum(len(group.files) for group in left)
    small = [sum(file.file_size_bytes < 0.75 * TARGET for file in group.files) for group in expected]
    assert found.columns.small.tolist() == small
    assert bool(found.left_text) == bool(left)


def groups_of(files: Sequence[LiveFile], config: RewriteDataFiles) -> FileGroups:
    data = [file for file in files if file.content is FileContent.DATA]
    return selection.choose_groups(metadata(SORTED), data, config)[0]
