"""The rows of rewritten tables as DuckDB reads them: it shares no code with us, and applies deletes."""

from __future__ import annotations

from pathlib import Path

from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import oracle_digest
from harness.tables import append_files, context_for, create_table, data_files, delete_files, lake, rows, small_files
from rewriting import rewrite, rewrite_all_manifests


def test_deletes_and_evolution_read_the_same_before_and_after(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 4, parts=("a", "b"))
    position_delete(table, {file.file_path: [0, 7] for file in data_files(table)[:3]})
    equality_delete(table, rows(10, 5, "b"), ["id"], partition=("b",))
    equality_delete(table, rows(0, 3, "a"), ["id", "part"], partition=("a",))
    append_files(table, 1, start=1, parts=("a", "b"))
    before = oracle_digest(table.metadata_location)
    assert before.rows < 100
    rewrite_all_manifests(table)
    assert oracle_digest(table.metadata_location) == before
    rewrite(table)
    assert delete_files(table) == []
    assert oracle_digest(table.metadata_location) == before
    rewrite(table, strategy="ZORDER", z_order_columns=["id", "text"])
    assert oracle_digest(table.metadata_location) == before


def test_an_equality_delete_that_came_meanwhile_hides_rows_of_the_rewritten_file(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)

    def act(attempt: int) -> None:
        if attempt == 1:
            equality_delete(table.catalog.load_table(table.name()), rows(5, 10), ["id"])

    assert rewrite(table, context_for(table, on_committing=act)).changed
    expected = create_table(lake(tmp_path / "other"))
    expected.append(rows(0, 5))
    expected.append(rows(15, 15))
    assert oracle_digest(table.metadata_location) == oracle_digest(expected.metadata_location)
