"""Trino and Spark on the catalogs that they speak to: an operation runs there, or is refused as documented.

The Iceberg REST catalog is what the engines' own tests run on. Newer versions run with ``--all-versions``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from catalog_tables import Lake, maintain
from harness.catalogs.base import NAME, CatalogUnderTest, Place
from harness.catalogs.servers import NESSIE, trino_s3
from harness.services.running import use
from harness.spark_sql import gateway_command
from harness.tables import data_files, rows_digest
from trino.dbapi import connect as connect_trino

from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.engines.spark.process import SparkSubmit
from airflow_provider_floe.engines.spark.submit import SubmitRoute
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.planning.model import Disposition
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation


@contextmanager
def trino(version: str, place: Place) -> Iterator[Engine]:
    assert place.trino is not None
    with use("s3", "rest", version) as services:
        facts = services[version]

        def connection():  # type: ignore[no-untyped-def]
            return connect_trino(host=facts["host"], port=int(facts["port"]), user="tester")

        name = f"t{uuid4().hex[:10]}"
        listed = ", ".join(f"\"{key}\" = '{value}'" for key, value in place.trino.items())
        connection().cursor().execute(f"CREATE CATALOG {name} USING iceberg WITH ({listed})").fetchall()
        try:
            yield TrinoEngine(connection, {NAME: name}, connection="trino_test")
        finally:
            connection().cursor().execute(f"DROP CATALOG {name}").fetchall()


@contextmanager
def spark(version: str, place: Place) -> Iterator[Engine]:
    assert place.spark is not None
    service = version.replace("spark", "spark-gateway")
    with use("s3", "rest", service) as services:
        # The rows of a JDBC catalog bear the name by which Spark calls it
        name = NAME if place.spark["type"] == "jdbc" else f"s{uuid4().hex[:10]}"
        catalog = f"spark.sql.catalog.{name}"
        settings = {catalog: "org.apache.iceberg.spark.SparkCatalog"}
        settings |= {f"{catalog}.{key}": value for key, value in place.spark.items()}
        command, variables = gateway_command(services[service])
        command += [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
        submit = SparkSubmit(command, environment=variables, connection="spark_test")
        yield SparkEngine(SubmitRoute(submit, "spark_test"), {NAME: name})


def test_an_engine_elsewhere_works_on_the_catalog(
    under_test: CatalogUnderTest, version: str, lake: Lake, place: Place
) -> None:
    table = lake.small_files(files=4)
    digest = rows_digest(table)
    name = version.partition("-")[0]
    with (trino if name == "trino" else spark)(version, place) as engine:
        env = lake.environment(
            {name: engine}, engine=name, expireSnapshots={"retainLast": 1, "maxSnapshotAge": "PT1S"}, orphanCleanup=None
        )
        time.sleep(1.1)  # until the snapshots are old enough
        result = maintain(env, table)
        assert not result.verdict.failed, result.verdict.failures
        assert {record.status for record in result.records} <= {OperationStatus.SUCCESS, OperationStatus.SKIPPED}
        changed = {record.operation for record in result.records if record.result and record.result.changed}
        assert changed >= {Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS} - set(under_test.refuses)
        assert {record.engine for record in result.records} == {name}
        assert len(data_files(table)) == 1
        assert rows_digest(table) == digest
        if words := under_test.refuses.get(Operation.EXPIRE_SNAPSHOTS):
            decided = {item.operation: item for item in result.plan.items}
            assert decided[Operation.EXPIRE_SNAPSHOTS].disposition is Disposition.REFUSED
            assert words in str(decided[Operation.EXPIRE_SNAPSHOTS].reasons)
        again = maintain(env, table, Operation.REWRITE_DATA_FILES)
        assert [item.disposition for item in again.plan.items if item.operation is Operation.REWRITE_DATA_FILES] == [
            Disposition.NO_WORK
        ]


@pytest.mark.parametrize("under_test", [NESSIE], ids=["nessie"], indirect=True)
def test_an_engine_that_speaks_nessies_own_api_deletes_nothing_either(lake: Lake, place: Place) -> None:
    table = lake.small_files(files=4)
    digest = rows_digest(table)
    with use("s3", "nessie") as services:
        facts = services["nessie"]
        native = {
            "iceberg.catalog.type": "nessie",
            "iceberg.nessie-catalog.uri": facts["native_uri"],
            "iceberg.nessie-catalog.default-warehouse-dir": facts["location"],
            **trino_s3(services["s3"]),
        }
        with trino("trino-476", replace(place, trino=native)) as engine:
            result = maintain(lake.environment({"trino": engine}, engine="trino"), table)
    assert not result.verdict.failed, result.verdict.failures
    changed = {record.operation for record in result.records if record.result and record.result.changed}
    assert Operation.REWRITE_DATA_FILES in changed
    assert changed <= {Operation.REWRITE_DATA_FILES, Operation.REWRITE_MANIFESTS}
    decided = {item.operation: item.disposition for item in result.plan.items}
    assert decided[Operation.EXPIRE_SNAPSHOTS] is decided[Operation.REMOVE_ORPHAN_FILES] is Disposition.REFUSED
    assert len(data_files(table)) == 1
    assert rows_digest(table) == digest
