"""Tables in SeaweedFS's S3, in one REST catalog that this process, one Spark and one Trino share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from harness.catalogs.servers import spark_s3, trino_rest, trino_s3
from harness.feature_matrix import parametrize
from harness.feature_tables import Warehouse
from harness.services.base import Facts
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.spark_sql import SparkSql
from pyiceberg.catalog import Catalog
from trino.dbapi import connect

TELLING = (
    "v2 evolved-spec equality-of-nulls dropped+added sharing-branch",  # which DuckDB cannot read
    "v3 bucket vectors+equality no-field-ids branch",
    "v3 identity position+equality default staged",
)
QUICK_STATEMENTS = {
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
"""Spark's settings for tables of thirty rows: code compiled for one statement takes longer than to do without."""

Row = dict[str, Any]
Query = Callable[[str], list[Row]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, most=13, also=TELLING)


@pytest.fixture(scope="session")
def services() -> Iterator[dict[str, Facts]]:
    with use("seaweedfs", "rest-on-disk", "spark-connect-4.1", "trino-483") as running:
        yield {**running, "rest": running["rest-on-disk"], "s3": running["seaweedfs"]}


@pytest.fixture(scope="session")
def warehouse(services: dict[str, Facts]) -> Warehouse:
    return Warehouse(rest_catalog(services), services["s3"])


@pytest.fixture(scope="session")
def builder(services: dict[str, Facts]) -> Catalog:
    """The same catalog, for who builds tables."""
    return rest_catalog(services, properties={"py-io-impl": "harness.remembered_files.RememberingFileIO"})


@pytest.fixture(scope="session")
def namespace(warehouse: Warehouse) -> str:
    """Of the tables of this process; Spark and Trino call the catalog by the same name."""
    name = f"matrix_{uuid4().hex[:8]}"
    warehouse.catalog.create_namespace(name)
    return name


@pytest.fixture(scope="session")
def spark(services: dict[str, Facts], namespace: str) -> Iterator[SparkSql]:
    catalog = f"spark.sql.catalog.{namespace}"
    properties = {"type": "rest", "uri": services["rest"]["uri"], **spark_s3(services["s3"])}
    settings = {
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        **{f"{catalog}.{name}": value for name, value in properties.items()},
        **QUICK_STATEMENTS,
    }
    with closing(SparkSql(services["spark-connect-4.1"], settings)) as session:
        yield session


@pytest.fixture(scope="session")
def trino(services: dict[str, Facts], namespace: str) -> Iterator[Query]:
    facts = services["trino-483"]
    properties = {**trino_rest(services["rest"]["uri"]), **trino_s3(services["s3"])}
    told = ", ".join(f"\"{name}\" = '{value}'" for name, value in properties.items())
    with closing(connect(host=facts["host"], port=int(facts["port"]), user="tester")) as connection:

        def query(text: str) -> list[Row]:
            cursor = connection.cursor()
            cursor.execute(text)
            found = cursor.fetchall()
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, map(plain, row), strict=True)) for row in found]

        connection.cursor().execute(f"CREATE CATALOG {namespace} USING iceberg WITH ({told})").fetchall()
        try:
            yield query
        finally:
            connection.cursor().execute(f"DROP CATALOG {namespace}").fetchall()


def plain(value: Any) -> Any:
    """A dictionary in place of Trino's row with names, which a struct is."""
    return dict(zip(value.__annotations__["names"], value, strict=True)) if isinstance(value, tuple) else value
