"""Counts the rows that deletes remove for the check before a commit: by joins in DuckDB, not by the reader's masks."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.duck import connect
from airflow_provider_floe.engines.local.reader import by_columns, key_fields, project, read_keys
from airflow_provider_floe.iceberg.deletes import DeleteIndex
from airflow_provider_floe.iceberg.deletion_vectors import read_vector
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.selection import FileGroup


def count_deleted(table: Table, group: FileGroup, partition: Record, memory_bytes: int) -> int:
    """Rows of the group's files that its delete files remove."""
    if not group.deletes:
        return 0
    index = DeleteIndex(table.metadata, group.deletes)
    equality = by_columns(group.deletes)
    with connect(memory_bytes) as duck:
        _load_positions(duck, table, group.deletes)
        for number, deletes in enumerate(equality):
            keys = read_keys(table, deletes, partition)
            names = [*(f"c{field.field_id}" for field in key_fields(table.metadata, deletes[0])), "sequence_number"]
            duck.register("incoming", keys.rename_columns(names))
            duck.execute(f"CREATE TABLE keys_{number} AS SELECT * FROM incoming")
            duck.unregister("incoming")
        return sum(_count(duck, table, file, index.of(file), equality, partition) for file in group.files)


def _load_positions(duck: duckdb.DuckDBPyConnection, table: Table, deletes: Sequence[LiveFile]) -> None:
    duck.execute("CREATE TABLE positions (delete_file VARCHAR, file_path VARCHAR, pos BIGINT)")
    for delete in deletes:
        if delete.is_deletion_vector:
            positions = read_vector(table.io, delete)
            duck.register("incoming", pa.table({"pos": positions}))
            duck.execute(
                "INSERT INTO positions SELECT ?, ?, pos FROM incoming", [delete.key, delete.referenced_data_file]
            )
            duck.unregister("incoming")
        elif delete.content is FileContent.POSITION_DELETES:
            with table.io.new_input(delete.path).open() as stream:
                for batch in pq.ParquetFile(stream).iter_batches(columns=["file_path", "pos"]):
                    rows = pa.Table.from_batches([batch])
                    duck.register("incoming", rows)
                    duck.execute("INSERT INTO positions SELECT ?, file_path, pos FROM incoming", [delete.key])
                    duck.unregister("incoming")


def _count(
    duck: duckdb.DuckDBPyConnection,
    table: Table,
    file: LiveFile,
    deletes: Sequence[LiveFile],
    equality: Sequence[Sequence[LiveFile]],
    partition: Record,
) -> int:
    names = [delete.key for delete in deletes if delete.content is FileContent.POSITION_DELETES]
    positions = "SELECT pos FROM positions WHERE file_path = ? AND list_contains(?, delete_file) AND pos < ?"
    parameters = [file.path, names, file.record_count]
    if len(names) == len(deletes):
        return _number(duck, f"SELECT count(DISTINCT pos) FROM ({positions})", parameters) if names else 0
    fields = {field.field_id: field for one in equality for field in key_fields(table.metadata, one[0])}
    duck.register("data_rows", _numbered(table, file, partition, Schema(*fields.values())))
    conditions = []
    for number, same_columns in enumerate(equality):
        columns = [f"c{field.field_id}" for field in key_fields(table.metadata, same_columns[0])]
        same = " AND ".join(f"k.{column} IS NOT DISTINCT FROM d.{column}" for column in columns)
        later = f"k.sequence_number > {file.sequence_number}"
        conditions.append(f"EXISTS (SELECT 1 FROM keys_{number} k WHERE {same} AND {later})")
    query = f"SELECT count(*) FROM data_rows d WHERE {' OR '.join(conditions)} OR d.row_number IN ({positions})"
    return _number(duck, query, parameters)


def _number(duck: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object]) -> int:
    # All rows are fetched: a result left open would block the connection.
    return int(duck.execute(query, parameters).fetchall()[0][0])


def _numbered(table: Table, file: LiveFile, partition: Record, schema: Schema) -> pa.Table:
    """The columns of a file by field id, and the number of each row."""
    batches = list(project(table.metadata, table.io, file, partition, schema))
    names = [f"c{field.field_id}" for field in schema.fields]
    if not batches:
        return pa.table({**{name: pa.nulls(0) for name in names}, "row_number": pa.array([], pa.int64())})
    rows = pa.Table.from_batches(batches, schema=batches[0].schema).rename_columns(names)
    return rows.append_column("row_number", pa.array(np.arange(rows.num_rows)))
