"""What the tests of the Trino engine share: connections, tables, operations run as a plan would ask for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pyarrow as pa
from harness.services.base import Facts
from harness.services.brake import CommitBrake
from harness.tables import BY_PART, SCHEMA, FakeContext, context_for, rows
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table
from trino.dbapi import Connection, connect

from airflow_provider_floe.engines.base import Engine, OperationRequest, OperationResult
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation, TableRef

PARTITIONS = 60


@dataclass(frozen=True)
class Server:
    """A running Trino, and pyiceberg's client of the catalog that it works on."""

    facts: Facts
    catalog: RestCatalog

    @property
    def address(self) -> str:
        return f"http://{self.facts['host']}:{self.facts['port']}"

    def connect(self) -> Connection:
        return connect(host=self.facts["host"], port=int(self.facts["port"]), user="tester")

    def engine(self, catalogs: Mapping[str, str], **options: Any) -> TrinoEngine:
        return TrinoEngine(self.connect, catalogs, connection="trino_test", **options)

    def query(self, query_id: str) -> dict[str, Any]:
        """What the server knows of a query."""
        with urlopen(Request(f"{self.address}/v1/query/{query_id}", headers={"X-Trino-User": "tester"})) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def queries(self, operation_id: str) -> list[list[Any]]:
        """Id, state and error of every query that carried out the operation, in order."""
        return self.rows(
            "SELECT query_id, state, error_code FROM system.runtime.queries "
            f"WHERE query LIKE 'ALTER TABLE%floe operation {operation_id}' ORDER BY created"
        )

    def rows(self, statement: str) -> list[list[Any]]:
        """What Trino answers, on a connection of its own."""
        with self.connect() as connection:
            found: list[list[Any]] = connection.cursor().execute(statement).fetchall()
            return found


@contextmanager
def braked_catalog(server: Server, services: Mapping[str, Facts]) -> Iterator[tuple[CommitBrake, str]]:
    """A catalog of the server, by a name of its own, on the REST catalog: its commits can be held up."""
    name, s3 = f"braked_{uuid4().hex[:8]}", services["s3"]
    with CommitBrake(services["rest"]["uri"]) as brake:
        properties = {
            "iceberg.catalog.type": "rest",
            "iceberg.rest-catalog.uri": brake.uri,
            "fs.native-s3.enabled": "true",
            "s3.endpoint": s3["endpoint"],
            "s3.region": s3["region"],
            "s3.path-style-access": "true",
            "s3.aws-access-key": s3["key"],
            "s3.aws-secret-key": s3["secret"],
            "iceberg.expire-snapshots.min-retention": "0s",
        }
        told = ", ".join(f"\"{key}\" = '{value}'" for key, value in properties.items())
        server.rows(f"CREATE CATALOG {name} USING iceberg WITH ({told})")
        try:
            yield brake, name
        finally:
            brake.drop()
            server.rows(f"DROP CATALOG {name}")


def small_files(
    catalog: RestCatalog,
    identifier: str | tuple[str, ...],
    files: int = 4,
    *,
    parts: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """A table with ``files`` appends of ten rows, for each value of ``parts`` where it is partitioned."""
    table = catalog.create_table(
        identifier,
        schema=SCHEMA,
        partition_spec=BY_PART if parts else UNPARTITIONED_PARTITION_SPEC,
        properties={"format-version": "2", **(properties or {})},
    )
    for number in range(files):
        for offset, part in enumerate(parts or ("a",)):
            table.append(rows((number * max(len(parts), 1) + offset) * 10, 10, part))
    return table


def many_small_files(catalog: RestCatalog, identifier: str | tuple[str, ...]) -> Table:
    """Two small files in each of many partitions: to rewrite them takes Trino some seconds."""
    table = small_files(catalog, identifier, 0, parts=("a",))
    many = pa.concat_tables([rows(10 * number, 2, f"p{number}") for number in range(PARTITIONS)])
    table.append(many)
    table.append(many)
    return table


def now_context(table: Table, **fields: Any) -> FakeContext:
    """A context on the real clock's time, or so many days later."""
    days = fields.pop("days", 0)
    return context_for(table, time=datetime.now(UTC) + timedelta(days=days), **fields)


def run(
    engine: Engine,
    table: Table,
    operation: Operation,
    settings: OperationSettings,
    context: FakeContext | None = None,
    *,
    catalog: str = "lake",
    operation_id: str | None = None,
) -> OperationResult:
    """Run one operation; the table is refreshed."""
    *namespace, name = table.name()
    ref = TableRef(catalog, tuple(namespace), name)
    request = OperationRequest(operation_id or uuid4().hex, ref, operation, settings)
    try:
        return engine.execute(request, context or now_context(table))
    finally:
        table.refresh()


def stored(table: Table) -> set[str]:
    """Every file below the table's location."""
    return {file.path for batch in list_files(table.io, table.location()) for file in batch}


def put(table: Table, name: str, content: bytes = b"stray") -> str:
    """Put a file below the table's location."""
    path = f"{table.location()}/{name}"
    with table.io.new_output(path).create() as stream:
        stream.write(content)
    return path
