"""Tables that the local engine maintained are valid to Spark and Trino: both read their rows, and Spark writes on.

Of the full matrix two parts are left to the tests of every pair. What the local engine leaves alone by the tests'
own checks, and its second run: the tests on disk hold that of every combination, and the readers here hold the rows
of every snapshot. And writing on where there are snapshots beside the main branch: a writer reads the main branch only,
which is the same whatever is beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from harness.feature_maintenance import kept_snapshots, maintain, run_every_operation
from harness.feature_tables import Combination, Warehouse, build, expected_ids, expected_rows
from harness.spark_sql import SparkSql
from pyiceberg.catalog import Catalog
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
    pytestconfig: pytest.Config,
    warehouse: Warehouse,
    builder: Catalog,
    namespace: str,
    spark: SparkSql,
    trino: Callable[[str], list[Row]],
    combination: Combination,
) -> None:
    full = pytestconfig.getoption("full_matrix")
    name = f"{namespace}.t{uuid4().hex[:8]}"
    build(builder, combination, name)
    table = warehouse.catalog.load_table(name)
    if full:
        run_every_operation(table)
    else:
        maintain(table, combination, warehouse, tmp_path)

    place = f"{namespace}.{name}"
    rows = expected_rows(combination, table.schema())
    expected = {**expected_ids(combination), "main": rows}
    if compares_another_column(combination):
        del expected["sharing"]
        with pytest.raises(SparkConnectException, match=UNREADABLE["spark"]):
            spark(f"SELECT id FROM {place} VERSION AS OF 'sharing'")
        with pytest.raises(TrinoQueryError, match=UNREADABLE["trino"]):
            trino(f"SELECT id FROM {place} FOR VERSION AS OF 'sharing'")
    statement = reading(table, place, expected)
    assert by_ref(spark.named(statement)) == expected
    assert by_ref(trino(statement)) == expected

    if not full or combination["refs"] == "main":
        written = {"main": write_on(spark, place, table, rows)}
        statement = reading(table, place, written)
        assert by_ref(spark.named(statement)) == written
        assert by_ref(trino(statement)) == written


def compares_another_column(combination: Combination) -> bool:
    """Whether a branch keeps equality deletes by a dropped column whose name another one bears now."""
    return (combination["deletes"], combination["schema"], combination["refs"]) == (
        "equality-of-nulls",
        "dropped+added",
        "sharing-branch",
    )


def reading(table: Table, place: str, refs: Iterable[str]) -> str:
    """What reads the rows of the main branch and the ids of other snapshots at once, in Spark's SQL and in Trino's."""
    ids = ", ".join("id" if field.name == "id" else "NULL" for field in table.schema().fields)
    told = {ref: str(kept_snapshots(table)[ref]) if ref == "staged" else f"'{ref}'" for ref in refs}
    others = [
        f"SELECT {ids}, '{ref}' FROM {place} FOR VERSION AS OF {version}"
        for ref, version in told.items()
        if ref != "main"
    ]
    return " UNION ALL ".join([f"SELECT *, 'main' AS ref FROM {place}", *others])


def by_ref(found: Iterable[Row]) -> dict[str, list[Any]]:
    """Whole rows of the main branch, and ids of other snapshots, in the order of their ids."""
    refs: defaultdict[str, list[Any]] = defaultdict(list)
    for row in sorted(found, key=itemgetter("id")):
        ref = row.pop("ref")
        refs[ref].append(row if ref == "main" else row["id"])
    return dict(refs)


def write_on(spark: SparkSql, place: str, table: Table, rows: list[Row]) -> list[Row]:
    """Let Spark append, merge and delete; what the rows are then."""
    columns = [field.name for field in table.schema().fields]
    copied = ", ".join("id + 1000" if column == "id" else f"`{column}`" for column in columns)
    keys = ", ".join(map(str, (UPDATED, *MERGED_AWAY, NEW)))
    if table.metadata.format_version > 1:
        modes = ", ".join(f"'write.{one}.mode'='merge-on-read'" for one in ("delete", "update", "merge"))
        spark(f"ALTER TABLE {place} SET TBLPROPERTIES ({modes})")
    spark(
        f"INSERT INTO {place} SELECT {copied} FROM {place} WHERE id IN {COPIED}",
        f"MERGE INTO {place} t USING (SELECT explode(array({keys})) AS key) ON t.id = key "
        f"WHEN MATCHED AND key = {UPDATED} THEN UPDATE SET t.number = -1 WHEN MATCHED THEN DELETE "
        "WHEN NOT MATCHED THEN INSERT (id) VALUES (key)",
        f"DELETE FROM {place} WHERE id = {DELETED}",
    )
    kept = [row for row in rows if row["id"] not in (*MERGED_AWAY, DELETED)]
    changed = [{**row, "number": -1} if row["id"] == UPDATED else row for row in kept]
    copies = [{**row, "id": row["id"] + 1000} for row in rows if row["id"] in COPIED]
    fresh = {field.name: NEW if field.name == "id" else field.write_default for field in table.schema().fields}
    return [*changed, *copies, fresh]
