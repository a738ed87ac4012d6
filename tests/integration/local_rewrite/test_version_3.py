"""Tables of format version 3: rows keep their lineage, deletion vectors are applied, row ids are given out as told."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import version_3
from harness.oracle import oracle_digest
from harness.tables import context_for, create_table, lake, missing_files, rows
from harness.version_3 import add_vectors, append, upgrade
from pyiceberg.table import Table
from rewriting import rewrite, rewrite_all_manifests, work


def v3_table(tmp_path: Path, files: int = 3, *, partitioned: bool = False) -> Table:
    table = upgrade(create_table(lake(tmp_path), partitioned=partitioned))
    for number in range(files):
        append(table, rows(10 * number, 10))
    return table


def test_rows_keep_their_lineage(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    before = version_3.rows(table)
    assert [(row.values[0], row.row_id, row.last_updated) for row in before] == [(n, n, 1 + n // 10) for n in range(30)]
    assert rewrite(table).files_rewritten == 3
    assert version_3.rows(table) == before
    assert missing_files(table) == []
    assert not work(table).found


def test_the_oracle_reads_it(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    add_vectors(table, {version_3.live(table)[0].path: [1, 2]})
    before = oracle_digest(table.metadata_location)
    assert before.rows == 28
    rewrite(table)
    assert oracle_digest(table.metadata_location) == before
