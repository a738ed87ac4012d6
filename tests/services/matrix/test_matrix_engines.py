"""Tables that the local engine maintained are valid to Spark and Trino: both read their rows, and Spark writes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from harness.feature_maintenance import kept_snapshots, maintain
from harness.feature_tables import Combination, Warehouse, build, expected_ids, expected_rows
from harness.spark_sql import SparkSql
from pyiceberg.table import Table
from pyspark.errors.exceptions.connect import SparkConnectException
from trino.exceptions import TrinoQueryError

pytestmark = pytest.mark.services

Row = dict[str, Any]
UNREADABLE = {"spark": "multiple fields for name text", "trino": '"column" is null'}
"""Words of Spark 4.1 with Iceberg 1.11, and of Trino 483, where equality deletes compare a column that was dropped and
another bears its name now. So they read such a table before its maintenance, and a branch that still has such deletes.
"""
COPIED, UPDATED, MERGED_AWAY, NEW, DELETED = (0, 3), 5, (12, 16), 2000, 17


def test_engines_read_and_write_what_was_maintained(
    tmp_path: Path,
    warehouse: Warehouse,
    namespace: str,
    spark: SparkSql,
    trino: Callable[[str], list[Row]],
    combination: Combination,
) -> None:
    name = f"{namespace}.t{uuid4().hex[:8]}"
    table = build(warehouse.catalog, combination, name)
    maintain(table, combination, warehouse, tmp_path)

    rows = expected_rows(combination, table.schema())
    assert by_spark(spark, name) == rows
    assert by_trino(trino, name) == rows
    for ref, ids in expected_ids(combination).items():
        told = str(kept_snapshots(table)[ref]) if ref == "staged" else f"'{ref}'"
        of_spark = f"SELECT id FROM lake.{name} VERSION AS OF {told} ORDER BY id"
        of_trino = f"SELECT id FROM lake.{name} FOR VERSION AS OF {told} ORDER BY id"
        if ref == "sharing" and (combination["deletes"], combination["schema"]) == (
            "equality-of-nulls",
            "dropped+added",
        ):
            with pytest.raises(SparkConnectException, match=UNREADABLE["spark"]):
                spark(of_spark)
            with pytest.raises(TrinoQueryError, match=UNREADABLE["trino"]):
                trino(of_trino)
            continue
        assert [row[0] for row in spark(of_spark)] == ids
        assert [row["id"] for row in trino(of_trino)] == ids

    written = write_on(spark, name, table, rows)
    assert by_spark(spark, name) == written
    assert by_trino(trino, name) == written


def write_on(spark: SparkSql, name: str, table: Table, rows: list[Row]) -> list[Row]:
    """Let Spark append, merge and delete; what the rows are then."""
    columns = [field.name for field in table.schema().fields]
    copied = ", ".join("id + 1000" if column == "id" else f"`{column}`" for column in columns)
    keys = ", ".join(map(str, (UPDATED, *MERGED_AWAY, NEW)))
    if table.metadata.format_version > 1:
        modes = ", ".join(f"'write.{one}.mode'='merge-on-read'" for one in ("delete", "update", "merge"))
        spark(f"ALTER TABLE lake.{name} SET TBLPROPERTIES ({modes})")
    spark(
        f"INSERT INTO lake.{name} SELECT {copied} FROM lake.{name} WHERE id IN {COPIED}",
        f"MERGE INTO lake.{name} t USING (SELECT explode(array({keys})) AS key) ON t.id = key "
        f"WHEN MATCHED AND key = {UPDATED} THEN UPDATE SET t.number = -1 WHEN MATCHED THEN DELETE "
        "WHEN NOT MATCHED THEN INSERT (id) VALUES (key)",
        f"DELETE FROM lake.{name} WHERE id = {DELETED}",
    )
    kept = [row for row in rows if row["id"] not in (*MERGED_AWAY, DELETED)]
    changed = [{**row, "number": -1} if row["id"] == UPDATED else row for row in kept]
    copies = [{**row, "id": row["id"] + 1000} for row in rows if row["id"] in COPIED]
    fresh = {field.name: NEW if field.name == "id" else field.write_default for field in table.schema().fields}
    return [*changed, *copies, fresh]


def by_spark(spark: SparkSql, name: str) -> list[Row]:
    columns = [row[0] for row in spark(f"DESCRIBE TABLE lake.{name}") if row[0] and not row[0].startswith("#")]
    found = spark(f"SELECT * FROM lake.{name} ORDER BY id")
    return [plain(dict(zip(columns, row, strict=False))) for row in found]


def by_trino(trino: Callable[[str], list[Row]], name: str) -> list[Row]:
    return [plain(row) for row in trino(f"SELECT * FROM lake.{name} ORDER BY id")]


def plain(row: Row) -> Row:
    """A row whose struct is a dictionary."""
    pair = row["pair"]
    if pair is not None:
        names = getattr(pair, "__fields__", None) or pair.__annotations__["names"]
        row["pair"] = dict(zip(names, pair, strict=True))
    return row
