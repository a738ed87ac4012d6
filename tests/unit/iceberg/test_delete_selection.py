"""Which position deletes are worth compacting: few are left alone, dangling ones always go, and once is enough."""

from __future__ import annotations

from itertools import count

import pytest
from harness.tables import BY_PART, SCHEMA
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from airflow_provider_floe.iceberg.delete_selection import (
    DeleteSelection,
    delete_target_size,
    position_delete_work,
    select_position_deletes,
)
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.policies.model import RewritePositionDeleteFiles

FIVE = RewritePositionDeleteFiles()


def metadata(**properties: str) -> TableMetadata:
    names = {name.replace("_", "."): value for name, value in properties.items()}
    return new_table_metadata(SCHEMA, BY_PART, UNSORTED_SORT_ORDER, "file:///t", {"format-version": "2", **names})


def data(name: str, part: str = "a", sequence: int = 1) -> LiveFile:
    return file(FileContent.DATA, name, part, sequence)


def deletes(name: str, of: str | None, part: str = "a", sequence: int = 2, size: int = 1000) -> LiveFile:
    return file(FileContent.POSITION_DELETES, name, part, sequence, of=of, size=size)


def file(
    content: FileContent, path: str, part: str, sequence: int, *, of: str | None = None, size: int = 1000
) -> LiveFile:
    return LiveFile(
        path=path,
        content=content,
        file_format="PARQUET",
        spec_id=0,
        partition=(part,),
        record_count=1,
        file_size_bytes=size,
        sequence_number=sequence,
        snapshot_id=1,
        sort_order_id=None,
        referenced_data_file=of,
    )


def test_as_many_as_the_policy_says_become_one() -> None:
    by_partition = metadata(write_delete_granularity="partition")
    files = [data("d"), *(deletes(f"p{number}", "d") for number in range(4))]
    assert not select_position_deletes(by_partition, files, FIVE).groups
    (group,) = select_position_deletes(by_partition, [*files, deletes("p5", "d")], FIVE).groups
    assert (group.stored_in, group.files_out) == (5, 1)


def test_where_each_data_file_keeps_its_own_the_gain_counts() -> None:
    files = [data(f"d{number}") for number in range(9)]
    files += [deletes(f"p{number}", f"d{number}") for number in range(9)]
    assert not select_position_deletes(metadata(), files, FIVE).groups
    files += [deletes(f"q{number}", f"d{number}") for number in range(4)]
    (group,) = select_position_deletes(metadata(), files, FIVE).groups
    assert (group.stored_in, group.files_out) == (13, 9)


def test_a_delete_file_for_a_whole_partition_may_reach_each_of_its_files() -> None:
    files = [data(f"d{number}") for number in range(3)]
    files += [deletes(f"p{number}", None) for number in range(7)]
    (group,) = select_position_deletes(metadata(), files, FIVE).groups
    assert (group.stored_in, group.files_out) == (7, 3)
    assert not select_position_deletes(metadata(), files[:-1], FIVE).groups


def test_what_applies_to_nothing_is_dropped_however_few() -> None:
    files = [data("d", sequence=5), deletes("gone", "no-longer-there"), deletes("old", None, sequence=2)]
    found = select_position_deletes(metadata(), files, FIVE)
    assert {one.path for one in found.dangling} == {"gone", "old"}
    work = position_delete_work(metadata(), files, FIVE)
    assert work.found
    assert work.summary == "2 position delete files (2 KiB) can be dropped: no data file is left that they apply to"


@pytest.mark.parametrize(
    ("settings", "properties", "size"),
    [
        ({}, {}, 64 * 1024**2),
        ({}, {"write.delete.target-file-size-bytes": "5"}, 5),
        ({"targetFileSizeBytes": 7}, {}, 7),
    ],
)
def test_the_target_size(settings: dict[str, int], properties: dict[str, str], size: int) -> None:
    asked = RewritePositionDeleteFiles.model_validate(settings)
    table = metadata().model_copy(update={"properties": properties})
    assert delete_target_size(table, asked) == size


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.sampled_from("ab")), max_size=12),
    st.sampled_from(["file", "partition"]),
    st.integers(2, 6),
)
def test_once_is_enough(placed: list[tuple[int, int, str]], granularity: str, least: int) -> None:
    """However the delete files lie: what is left after a compaction is not worth another."""
    table = metadata(write_delete_granularity=granularity)
    settings = RewritePositionDeleteFiles(min_input_files=least)
    files = [data(f"{part}{number}", part) for part in "ab" for number in range(3)]  # a3 and b3 are gone
    names = count()
    for target, how_many, part in placed:
        files += [deletes(f"p{next(names)}", f"{part}{target}", part) for _ in range(how_many)]
    found = select_position_deletes(table, files, settings)
    left = [one for one in files if one.content is FileContent.DATA] + _compacted(files, found, granularity)
    again = select_position_deletes(table, left, settings)
    assert again.groups == ()
    assert again.dangling == ()


def _compacted(files: list[LiveFile], found: DeleteSelection, granularity: str) -> list[LiveFile]:
    gone = {one.key for one in found.dangling} | {one.key for group in found.groups for one in group.files}
    kept = [one for one in files if one.content is FileContent.POSITION_DELETES and one.key not in gone]
    for number, group in enumerate(found.groups):
        part = str(group.files[0].partition[0])
        named = {one.referenced_data_file for one in group.files} if granularity == "file" else {f"{part}0"}
        kept += [deletes(f"new{number}-{name}", name, part, sequence=9) for name in sorted(filter(None, named))]
    return kept
