"""Compacting position deletes without rewriting data, on each engine."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from conformance import DELETES, Target
from conformance_lake import Lake
from harness.merge_on_read import position_delete
from harness.tables import data_files, delete_files
from pyiceberg.table import Table

pytestmark = pytest.mark.services


def test_each_data_file_is_left_with_one_small_delete_file(target: Target, lake: Lake) -> None:
    table = under_deletes(lake, rounds=2, parts=("a", "b"))
    if _refused(target, table):
        return
    target.nothing_to_do(table, DELETES)  # 4 of a partition would become 2: not as much as 5 that become 1
    done = target.maintain(table, DELETES, {"minInputFiles": 3})
    assert (len(done.before.deletes), len(done.after.deletes)) == (8, 4)


def test_a_partition_is_left_with_one_small_delete_file_where_the_table_says_so(target: Target, lake: Lake) -> None:
    table = under_deletes(lake, rounds=3, parts=("a", "b"), properties={"write.delete.granularity": "partition"})
    if _refused(target, table):
        return
    done = target.maintain(table, DELETES)
    assert (len(done.before.deletes), len(done.after.deletes)) == (12, 2)


def test_delete_files_of_a_good_size_stay(target: Target, lake: Lake) -> None:
    table = under_deletes(lake, rounds=5)
    largest = max(file.file_size_in_bytes for file in delete_files(table))
    target.nothing_to_do(table, DELETES, {"targetFileSizeBytes": largest})


def test_deletes_of_files_that_are_gone_are_dropped(target: Target, lake: Lake) -> None:
    table = under_deletes(lake, rounds=1)
    table.delete("id < 10")
    assert len(data_files(table)) == 1
    if _refused(target, table):
        return
    done = target.maintain(table, DELETES)
    assert len(done.after.deletes) < len(done.before.deletes)


def under_deletes(
    lake: Lake, *, rounds: int, parts: tuple[str, ...] = (), properties: Mapping[str, str] | None = None
) -> Table:
    """A table with two data files in each partition, and for each so many delete files of one position."""
    table = lake.table(2, parts=parts, properties=properties)
    for position in range(rounds):
        position_delete(table, {file.file_path: [position] for file in data_files(table)}, file_scoped=True)
    return table


def _refused(target: Target, table: Table) -> bool:
    """Whether the engine cannot do this; then the plan says why."""
    capability = target.engine.probe().operation(DELETES)
    if not capability.supported:
        target.refuses(capability.reason, table, DELETES, {"minInputFiles": 2})
    return not capability.supported
