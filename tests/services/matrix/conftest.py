"""Tables in S3, in one REST catalog that this process, one Spark and one Trino share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from harness.feature_matrix import parametrize
from harness.feature_tables import Warehouse
from harness.services.base import Facts
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.spark_sql import SparkSql
from trino.dbapi import connect

TELLING = (
    "v2 evolved-spec equality-of-nulls dropped+added sharing-branch",  # which DuckDB cannot read
    "v3 bucket vectors+equality no-field-ids branch",
    "v3 identity position+equality default staged",
)
Row = dict[str, Any]
Query = Callable[[str], list[Row]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, most=13, also=TELLING)


@pytest.fixture(scope="session")
def services() -> Iterator[dict[str, Facts]]:
    with use("s3", "rest", "spark-connect-4.1", "trino-483") as running:
        yield running


@pytest.fixture(scope="session")
def warehouse(services: dict[str, Facts]) -> Warehouse:
    return Warehouse(rest_catalog(services), services["s3"])


@pytest.fixture(scope="session")
def namespace(warehouse: Warehouse) -> str:
    name = f"matrix_{uuid4().hex[:8]}"
    warehouse.catalog.create_namespace(name)
    return name


@pytest.fixture(scope="session")
def spark(services: dict[str, Facts]) -> Iterator[SparkSql]:
    with closing(SparkSql(services["spark-connect-4.1"])) as session:
        yield session


@pytest.fixture(scope="session")
def trino(services: dict[str, Facts]) -> Iterator[Query]:
    facts = services["trino-483"]
    with closing(connect(host=facts["host"], port=int(facts["port"]), user="tester")) as connection:

        def query(text: str) -> list[Row]:
            cursor = connection.cursor()
            cursor.execute(text)
            found = cursor.fetchall()
            return [dict(zip((column[0] for column in cursor.description), row, strict=True)) for row in found]

        yield query
