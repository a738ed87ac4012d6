"""What the local engine makes of tables of format version 3 is what Spark and Trino read: rows and their lineage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from harness import version_3
from harness.services.base import Facts
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.tables import FakeContext, context_for, request_for
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import Table
from trino.dbapi import connect

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.policies.model import RewriteDataFiles, RewriteManifests, RewritePositionDeleteFiles
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

LINEAGE = "id, text, _row_id, _last_updated_sequence_number"


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Facts]]:
    with use("s3", "rest", "spark-connect-4.1", "trino-483") as running:
        yield running


@pytest.fixture(scope="module")
def catalog(services: dict[str, Facts]) -> RestCatalog:
    return rest_catalog(services)


@pytest.fixture(scope="module")
def spark(services: dict[str, Facts]) -> Iterator[Any]:
    from pyspark.sql.connect.session import SparkSession

    session = SparkSession.builder.remote(services["spark-connect-4.1"]["url"]).create()
    yield session
    session.stop()


@pytest.fixture
def name(catalog: RestCatalog) -> str:
    namespace = f"v3_{uuid4().hex[:8]}"
    catalog.create_namespace(namespace)
    return f"{namespace}.events"


def by_spark(spark: Any, name: str, columns: str = LINEAGE) -> list[tuple[Any, ...]]:
    spark.sql(f"REFRESH TABLE lake.{name}")
    return [tuple(row) for row in spark.sql(f"SELECT {columns} FROM lake.{name} ORDER BY id").collect()]


def by_trino(services: dict[str, Facts], name: str) -> list[tuple[Any, ...]]:
    facts = services["trino-483"]
    cursor = connect(host=facts["host"], port=int(facts["port"]), user="tester").cursor()
    cursor.execute(f"SELECT id, text FROM lake.{name} ORDER BY id")
    return [tuple(row) for row in cursor.fetchall()]


def run(table: Table, operation: Operation, settings: Any, context: FakeContext | None = None) -> OperationResult:
    result = LocalEngine(256 * 1024**2).execute(request_for(table, operation, settings), context or context_for(table))
    table.refresh()
    return result


def create(spark: Any, name: str, version: int) -> None:
    modes = ", ".join(f"'write.{one}.mode'='merge-on-read'" for one in ("delete", "update", "merge"))
    properties = f"'format-version'='{version}', 'write.delete.granularity'='partition', {modes}"
    spark.sql(f"CREATE TABLE lake.{name} (id bigint, text string) USING iceberg TBLPROPERTIES ({properties})")


def fill(spark: Any, name: str, rows: range) -> None:
    spark.sql(f"INSERT INTO lake.{name} SELECT id, concat('text ', id) FROM range({rows.start}, {rows.stop}, 1, 1)")


def test_a_table_of_spark_with_deletion_vectors_and_changed_rows(
    services: dict[str, Facts], catalog: RestCatalog, spark: Any, name: str
) -> None:
    create(spark, name, 3)
    for start in range(0, 300, 100):
        fill(spark, name, range(start, start + 100))
    spark.sql(f"DELETE FROM lake.{name} WHERE id % 10 = 3")
    spark.sql(f"UPDATE lake.{name} SET text = 'changed' WHERE id IN (5, 105)")
    before = by_spark(spark, name)
    table = catalog.load_table(name)
    kinds = {one.file_format for one in version_3.live(table) if one.content}
    assert kinds == {"puffin"}
    assert len({row[3] for row in before}) > 3, "rows were last changed by several commits"

    assert run(table, Operation.REWRITE_MANIFESTS, RewriteManifests()).changed
    assert by_spark(spark, name) == before
    assert run(table, Operation.REWRITE_DATA_FILES, RewriteDataFiles()).changed

    assert [one.content for one in version_3.live(table)] == [0]
    assert by_spark(spark, name) == before
    assert spark.sql(f"SELECT content FROM lake.{name}.files").collect()[0][0] == 0
    assert by_trino(services, name) == [row[:2] for row in before]
    # what comes after takes no row id that was given out before
    fill(spark, name, range(300, 310))
    spark.sql(f"DELETE FROM lake.{name} WHERE id = 0")
    after = by_spark(spark, name)
    assert after[:-10] == before[1:]
    assert len({row[2] for row in after}) == len(after)
    assert min(row[2] for row in after[-10:]) > max(row[2] for row in before)


def test_position_deletes_from_before_the_upgrade_become_vectors_that_spark_goes_on_with(
    services: dict[str, Facts], catalog: RestCatalog, spark: Any, name: str
) -> None:
    create(spark, name, 2)
    fill(spark, name, range(50))
    fill(spark, name, range(50, 100))
    # its files keep the data sequence number of what they replace
    assert run(catalog.load_table(name), Operation.REWRITE_DATA_FILES, RewriteDataFiles()).changed
    spark.sql(f"REFRESH TABLE lake.{name}")
    for number in range(5):
        spark.sql(f"DELETE FROM lake.{name} WHERE id % 20 = {number}")
    fill(spark, name, range(100, 200))
    spark.sql(f"ALTER TABLE lake.{name} SET TBLPROPERTIES ('format-version'='3')")
    before = by_spark(spark, name, "id, text")
    table = catalog.load_table(name)
    assert {one.file_format for one in version_3.live(table) if one.content} == {"parquet"}

    result = run(table, Operation.REWRITE_POSITION_DELETE_FILES, RewritePositionDeleteFiles())
    assert result.changed, result.message
    vectors = [one for one in version_3.live(table) if one.content]
    assert {one.file_format for one in vectors} == {"puffin"}
    assert sum(one.records for one in vectors) == 25
    assert by_spark(spark, name, "id, text") == before == by_trino(services, name)

    spark.sql(f"DELETE FROM lake.{name} WHERE id IN (50, 51, 150)")
    lineage = by_spark(spark, name)
    assert [row[:2] for row in lineage] == [row for row in before if row[0] not in (50, 51, 150)]
    assert len({row[2] for row in lineage}) == len(lineage)
    assert run(table.refresh(), Operation.REWRITE_DATA_FILES, RewriteDataFiles()).changed
    assert [one.content for one in version_3.live(table)] == [0]
    assert by_spark(spark, name) == lineage
    assert by_trino(services, name) == [row[:2] for row in lineage]
