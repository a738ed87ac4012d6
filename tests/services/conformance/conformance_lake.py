"""The REST catalog and S3 store on which every engine is held to the same cases, and the tables of those cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from uuid import uuid4

from harness.oracle import Digest, oracle_digest
from harness.services.base import Facts
from harness.spark_sql import SparkSql
from harness.tables import BY_PART, SCHEMA, append_files
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table

from airflow_provider_floe.iceberg.listing import list_files

CATALOG = "prod"
"""What policies call the catalog; the engines call it otherwise."""
IN_ENGINES = "lake"


@dataclass
class Lake:
    """Catalog and store, who makes tables there, and who reads them.

    :ivar made: the tables of the current test; they are dropped after it.
    """

    catalog: RestCatalog
    services: Mapping[str, Facts]
    made: list[tuple[str, ...]] = field(default_factory=list)

    @cached_property
    def sql(self) -> SparkSql:
        """Makes what pyiceberg cannot make."""
        return SparkSql(self.services["spark-connect-4.1"])

    def close(self) -> None:
        if "sql" in self.__dict__:
            self.sql.close()

    def clean_up(self) -> None:
        """Drop what the test made, so that later tests need not look at it."""
        for identifier in self.made:
            if self.catalog.table_exists(identifier):
                self.catalog.drop_table(identifier)
        self.made.clear()

    def namespace(self, *inner: str) -> tuple[str, ...]:
        """A new namespace, with others inside."""
        levels: tuple[str, ...] = (f"c{uuid4().hex[:10]}",)
        self.catalog.create_namespace(levels)
        for level in inner:
            levels = (*levels, level)
            self.catalog.create_namespace(levels)
        return levels

    def table(
        self,
        files: int = 3,
        *,
        parts: Sequence[str] = (),
        name: str = "t",
        namespace: Sequence[str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Table:
        """A table of format version 2 with so many appends of ten rows, for each of ``parts`` where partitioned."""
        identifier = (*(namespace or self.namespace()), name)
        self.made.append(identifier)
        table = self.catalog.create_table(
            identifier,
            schema=SCHEMA,
            partition_spec=BY_PART if parts else UNPARTITIONED_PARTITION_SPEC,
            properties={"format-version": "2", **(properties or {})},
        )
        return append_files(table, files, parts=parts or ("a",))

    def spark_table(
        self, columns: str, *, partitioned_by: str = "", properties: Mapping[str, str] | None = None
    ) -> str:
        """An empty table, made by Spark. Its name in Spark is returned; :meth:`load` loads it."""
        (namespace,) = self.namespace()
        self.made.append((namespace, "t"))
        name = f"{IN_ENGINES}.{namespace}.t"
        partitioning = f"PARTITIONED BY ({partitioned_by})" if partitioned_by else ""
        listed = ", ".join(f"'{key}'='{value}'" for key, value in {"format-version": "2", **(properties or {})}.items())
        self.sql(f"CREATE TABLE {name} ({columns}) USING iceberg {partitioning} TBLPROPERTIES ({listed})")
        return name

    def load(self, name_in_spark: str) -> Table:
        _, *identifier = name_in_spark.split(".")
        return self.catalog.load_table(tuple(identifier))

    def digest(self, table: Table, snapshot_id: int | None = None) -> Digest:
        """Rows as an independent reader sees them: DuckDB, or Spark where DuckDB cannot read such a path."""
        if not table.metadata.snapshots:
            return Digest(0, 0)
        if '"' not in table.location():
            return oracle_digest(table.metadata_location, snapshot_id, s3=self.services["s3"])
        version = f"VERSION AS OF {snapshot_id}" if snapshot_id is not None else ""
        columns = ", ".join(spark_name(column.name) for column in table.schema().fields)
        query = f"SELECT count(*), coalesce(sum(CAST(xxhash64({columns}) AS DECIMAL(38, 0))), 0) FROM "
        (found,) = self.sql(f"REFRESH TABLE {in_spark(table)}", f"{query}{in_spark(table)} {version}")
        return Digest(int(found[0]), int(found[1]))

    def row_lineage(self, table: Table) -> list[str]:
        """Which row is which, for format version 3, as Spark reads it."""
        what = "count(*), bit_xor(xxhash64(_row_id, _last_updated_sequence_number, id))"
        (found,) = self.sql(f"REFRESH TABLE {in_spark(table)}", f"SELECT {what} FROM {in_spark(table)}")
        return [str(value) for value in found]

    def put(self, table: Table, name: str) -> str:
        """A file of five bytes below the table's location that nothing references."""
        path = f"{table.location()}/{name}"
        with table.io.new_output(path).create() as stream:
            stream.write(b"stray")
        return path

    def aged(self, table: Table, days: Sequence[float]) -> Table:
        """The same table, its snapshots so many days old, oldest first; nothing else of it changes.

        Its metadata is written anew with other times and registered again, since no engine lets a test set the clock.
        """
        with table.io.new_input(table.metadata_location).open() as stream:
            document = json.loads(stream.read())
        now = datetime.now(UTC)
        times = {
            snapshot["snapshot-id"]: int((now - timedelta(days=age)).timestamp() * 1000)
            for snapshot, age in zip(document["snapshots"], days, strict=True)
        }
        for entry in (*document["snapshots"], *document["snapshot-log"]):
            entry["timestamp-ms"] = times[entry["snapshot-id"]]
        document["last-updated-ms"] = max(times.values())
        document["metadata-log"] = []
        path = f"{table.location()}/metadata/00100-{uuid4()}.metadata.json"
        with table.io.new_output(path).create() as stream:
            stream.write(json.dumps(document).encode())
        self.catalog.drop_table(table.name())
        return self.catalog.register_table(table.name(), path)


def stored(table: Table) -> dict[str, int]:
    """Every file below the table's location, with its size."""
    return {file.path: file.size_bytes for batch in list_files(table.io, table.location()) for file in batch}


def spark_name(part: str) -> str:
    return "`" + part.replace("`", "``") + "`"


def in_spark(table: Table) -> str:
    return ".".join(spark_name(part) for part in (IN_ENGINES, *table.name()))
