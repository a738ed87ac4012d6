"""Whatever happens to a table in whatever order, maintenance changes no row and no lineage, and ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from harness import version_3
from harness.merge_on_read import position_delete
from harness.tables import create_table, lake, missing_files, rows
from harness.version_3 import add_vectors, append, upgrade
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table
from rewriting import rewrite, rewrite_all_manifests, rewrite_deletes, work, work_on_deletes

DELETES = {"min_input_files": 2}
APPEND = st.tuples(st.just("append"), st.integers(1, 8))
DELETE = st.tuples(st.just("delete"), st.sets(st.integers(0, 40), min_size=1, max_size=6))
MAINTENANCE = st.tuples(
    st.sampled_from(["rewrite", "sort", "rewrite some", "deletes", "manifests"]), st.integers(0, 40)
)
STEPS = st.lists(st.one_of(APPEND, DELETE, MAINTENANCE), min_size=2, max_size=7)


@settings(max_examples=15)
@given(STEPS, STEPS, st.booleans(), st.sampled_from(["file", "partition"]))
def test_a_life_across_the_upgrade(
    before: Sequence[tuple[str, Any]], after: Sequence[tuple[str, Any]], partitioned: bool, granularity: str
) -> None:
    with TemporaryDirectory() as folder:
        properties = {"write.delete.granularity": granularity}
        table = create_table(lake(Path(folder)), partitioned=partitioned, properties=properties)
        life = _Life(table)
        for step in (("append", 4), *before):
            life.go(*step)
        upgrade(table)
        for step in (("append", 3), *after):
            life.go(*step)
        rewrite_deletes(table, **DELETES)
        rewrite(table)
        assert not work(table).found
        assert not work_on_deletes(table, **DELETES).found
        life.check()
        assert None not in {row.row_id for row in version_3.rows(table)}
        assert missing_files(table) == []


class _Life:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.ids: list[int] = []
        self._next = 0

    def go(self, what: str, how: Any) -> None:
        known = version_3.rows(self.table) if self.ids else []
        if what == "append":
            self._append(how)
        elif what == "delete":
            self._delete(how)
        else:
            self._maintain(what, how)
            self._same_lineage(known)
        self.check()

    def check(self) -> None:
        if self.table.metadata.current_snapshot() is not None:
            found = version_3.rows(self.table)
            assert sorted(row.values[0] for row in found) == self.ids
            told = [row.row_id for row in found if row.row_id is not None]
            assert len(told) == len(set(told))

    def _append(self, count: int) -> None:
        parts = [rows(self._next + n, 1, "ab"[n % 2]) for n in range(count)]
        if self.table.metadata.format_version < 3:
            self.table.append(pa.concat_tables(parts))
        else:
            append(self.table, pa.concat_tables(parts))
        self.ids += range(self._next, self._next + count)
        self._next += count

    def _delete(self, ids: set[int]) -> None:
        where = version_3.positions_of(self.table, ids)
        if not where:
            return
        if self.table.metadata.format_version < 3:
            position_delete(self.table, where)
        else:
            add_vectors(self.table, where)
        self.ids = [one for one in self.ids if one not in ids]

    def _maintain(self, what: str, how: int) -> None:
        if what == "rewrite":
            rewrite(self.table)
        elif what == "sort":
            rewrite(self.table, strategy="SORT", sort_order=["id DESC"])
        elif what == "rewrite some":
            rewrite(self.table, filter=f"id < {how}")
        elif what == "deletes":
            rewrite_deletes(self.table, **DELETES)
        else:
            rewrite_all_manifests(self.table)

    def _same_lineage(self, known: Sequence[version_3.Row]) -> None:
        """Rows of a table that has no ids yet get some; all others keep theirs."""
        if self.table.metadata.format_version < 3:
            return
        now = {row.values[0]: row for row in version_3.rows(self.table)}
        for row in known:
            assert row.row_id is None or now[row.values[0]] == row
