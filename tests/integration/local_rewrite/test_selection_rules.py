"""Which files a rewrite selects: it makes progress, says so in numbers, and leaves nothing for the next one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from harness.tables import BY_PART, SCHEMA, append_files, create_table, data_files, lake, small_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from rewriting import rewrite, work

from airflow_provider_floe.iceberg import grouping
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.selection import expected_files, select_rewrite
from airflow_provider_floe.policies.model import RewriteDataFiles

TARGET = 1000


def metadata() -> TableMetadata:
    return new_table_metadata(SCHEMA, BY_PART, UNSORTED_SORT_ORDER, "file:///table", {"format-version": "2"})


def live(number: int, size: int, part: str = "a", **changes: object) -> LiveFile:
    file = LiveFile(
        path=f"file:///table/data/{number}.parquet",
        content=FileContent.DATA,
        file_format="PARQUET",
        spec_id=0,
        partition=(part,),
        record_count=1,
        file_size_bytes=size,
        sequence_number=1,
    )
    return replace(file, **changes)  # type: ignore[arg-type]


def simulate(files: list[LiveFile], wanted: RewriteDataFiles, ratio: float) -> list[LiveFile]:
    """What a rewrite leaves: each group's bytes, times what compression makes of them, in files of even size."""
    selection = select_rewrite(metadata(), files, wanted)
    gone = {file.path for group in selection.groups for file in group.files}
    new = []
    for group in selection.groups:
        size = max(1, int(group.size_bytes * ratio))
        count = expected_files(size, selection.target_bytes)
        for number in range(count):
            path = f"file:///table/data/{selection.mark}-{group.files[0].path.rpartition('/')[2]}-{number}.parquet"
            new.append(replace(group.files[0], path=path, file_size_bytes=size // count, sequence_number=2))
    return [*new, *(file for file in files if file.path not in gone and file.content is FileContent.DATA)]


sizes = st.lists(st.tuples(st.integers(1, 3000), st.sampled_from("ab")), max_size=25)


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(
    sizes,
    st.sampled_from([300, 900, 1000, 1500, 5000, 10**9]),
    st.floats(0.1, 1.5),
    st.sampled_from(["BINPACK", "SORT", "ZORDER"]),
    st.sampled_from([2, 3, 7, grouping.MOST_FILES]),
)
def test_after_a_rewrite_there_is_nothing_to_select(
    found: list[tuple[int, str]], group_bytes: int, ratio: float, strategy: str, most_files: int
) -> None:
    wanted = RewriteDataFiles.model_validate(
        {
            "strategy": strategy,
            "targetFileSizeBytes": TARGET,
            "maxFileGroupSizeBytes": group_bytes,
            "sortOrder": ["id"] if strategy == "SORT" else [],
            "zOrderColumns": ["id"] if strategy == "ZORDER" else [],
        }
    )
    files = [live(number, size, part) for number, (size, part) in enumerate(found)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "MOST_FILES", most_files)
        after = simulate(files, wanted, ratio)
        assert select_rewrite(metadata(), after, wanted).groups == ()


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(sizes)
def test_binpack_selects_only_what_makes_fewer_files_or_smaller_ones(found: list[tuple[int, str]]) -> None:
    files = [live(number, size, part) for number, (size, part) in enumerate(found)]
    for group in select_rewrite(metadata(), files, RewriteDataFiles(target_file_size_bytes=TARGET)).groups:
        assert len({file.partition for file in group.files}) == 1
        large = any(file.file_size_bytes > 1.8 * TARGET for file in group.files)
        assert group.files_out < len(group.files) or (large and group.files_out > 1)


@given(st.integers(1, 10**7))
def test_files_of_even_size_are_neither_small_nor_large(size: int) -> None:
    each = size / expected_files(size, TARGET)
    assert size < 0.75 * TARGET or 0.75 * TARGET <= each <= 1.8 * TARGET


def test_a_big_file_waits_for_company_rather_than_being_copied_for_each_small_one() -> None:
    wanted = RewriteDataFiles(target_file_size_bytes=TARGET)
    files = [live(0, 700), live(1, 10)]
    assert select_rewrite(metadata(), files, wanted).groups == ()
    files += [live(number, 10) for number in range(2, 5)]
    assert len(select_rewrite(metadata(), files, wanted).groups) == 1


def test_the_tables_target_holds_unless_the_policy_has_one(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, properties={"write.target-file-size-bytes": "1000"})
    assert not work(table).found
    assert work(table, target_file_size_bytes=10**6).found


def test_the_summary_has_the_numbers(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=("a", "b"))
    found = work(table)
    size = sum(file.file_size_in_bytes for file in data_files(table))
    assert (found.files_in, found.files_out, found.bytes_in) == (6, 2, size)
    for part in ("6 (6 below 384 MiB) of 6 data files", "2 partitions", "about 2 files of up to 512 MiB"):
        assert part in found.summary
    rewrite(table)
    assert work(table).summary == "none of 2 data files needs rewriting for a target of 512 MiB"


def test_planning_and_engine_agree(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), partitioned=True)
    append_files(table, 4, parts=("a", "b"))
    append_files(table, 1, parts=("c",), start=1000)
    planned = work(table, filter="part in ('a', 'c')")
    result = rewrite(table, filter="part in ('a', 'c')")
    assert (planned.files_in, planned.files_out, planned.bytes_in) == (
        result.files_rewritten,
        result.files_added,
        result.bytes_rewritten,
    )


@pytest.mark.parametrize("partitioned_paths", ["true", "false"])
def test_own_files_are_known_again_in_object_store_layouts(tmp_path: Path, partitioned_paths: str) -> None:
    layout = {
        "write.object-storage.enabled": "true",
        "write.object-storage.partitioned-paths": partitioned_paths,
        "write.target-file-size-bytes": "100000",
    }
    table = small_files(lake(tmp_path), 3, properties=layout)
    order = {"strategy": "SORT", "sort_order": ["text"]}
    rewrite(table, **order)
    assert not work(table, **order).found
