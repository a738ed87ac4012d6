"""Rewriting data files: each kind of table and each setting, on each engine."""

from __future__ import annotations

from collections import Counter

import pytest
from conformance import REWRITE, Target
from conformance_lake import Lake
from harness.tables import data_files

pytestmark = pytest.mark.services


@pytest.mark.every_version
def test_small_files_become_one_in_each_partition(target: Target, lake: Lake) -> None:
    table = lake.table(3, parts=("a", "b'c"))
    done = target.maintain(table, REWRITE)
    assert Counter(file.partition[0] for file in data_files(done.table)) == {"a": 1, "b'c": 1}
