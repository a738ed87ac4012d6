"""A table with work for every operation, other clients that commit to it, and what must hold whoever comes first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import oracle_digest, parquet_digest
from harness.rest_server import rest_server
from harness.tables import (
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    lake,
    local_path,
    missing_files,
    referenced_files,
    request_for,
    rows,
    stored_files,
)
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import Table
from pyiceberg.types import StringType

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.policies.model import (
    ExpireSnapshots,
    OperationSettings,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
    RewritePositionDeleteFiles,
)
from airflow_provider_floe.tables import Operation

ENGINE = LocalEngine(256 * 1024**2)
SETTINGS: Mapping[Operation, OperationSettings] = {
    Operation.REWRITE_DATA_FILES: RewriteDataFiles(),
    Operation.REWRITE_MANIFESTS: RewriteManifests(),
    Operation.REWRITE_POSITION_DELETE_FILES: RewritePositionDeleteFiles(min_input_files=2),
    Operation.EXPIRE_SNAPSHOTS: ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1)),
    Operation.REMOVE_ORPHAN_FILES: OrphanCleanup(),
}
Client = Callable[[], Catalog]
IDS = frozenset(range(2, 40))
"""Of the rows that the table holds at first."""


@contextmanager
def clients(kind: str, folder: Path) -> Iterator[Client]:
    """Makes clients of one catalog that know nothing of each other."""
    if kind == "sql":
        yield lambda: lake(folder)
        return
    with rest_server(folder) as server:
        server.catalog.create_namespace("db")
        yield lambda: RestCatalog("lake", uri=server.uri)


def prepared(catalog: Catalog) -> Table:
    """Small data files, two position delete files, snapshots past retention with a file of their own, and a stray."""
    table = create_table(catalog)  # type: ignore[arg-type]
    append_files(table, 1, start=900)
    table.overwrite(rows(0, 10))
    append_files(table, 3, start=10)
    for position in (0, 1):
        position_delete(table, {holding(table, 0): [position]})
    stray_of(table).write_bytes(b"of a writer that died")
    return table


def stray_of(table: Table) -> Path:
    """A file of the table's that it never knew."""
    return local_path(table.location()) / "data" / "stray.parquet"


def holding(table: Table, first: int) -> str:
    """The data file whose smallest id this is."""
    wanted = first.to_bytes(8, "little")
    return next(file.file_path for file in data_files(table) if file.lower_bounds[1] == wanted)


def position_of(table: Table, one: int) -> dict[str, list[int]]:
    """Where the row with this id is."""
    for file in data_files(table):
        ids = pq.read_table(local_path(file.file_path), columns=["id"])["id"].to_pylist()
        if one in ids:
            return {file.file_path: [ids.index(one)]}
    raise AssertionError(f"no data file holds the row {one}")


def run(table: Table, operation: Operation, context: FakeContext | None = None) -> OperationResult:
    """An operation; the table is refreshed."""
    try:
        return ENGINE.execute(request_for(table, operation, SETTINGS[operation]), context or context_for(table))
    finally:
        table.refresh()


def _append(other: Table) -> None:
    other.append(rows(1000, 5))


def _delete_position(other: Table) -> None:
    position_delete(other, {holding(other, 10): [2]})


def _delete_equal(other: Table) -> None:
    equality_delete(other, rows(25, 1), ["id"])


def _overwrite(other: Table) -> None:
    other.overwrite(rows(2000, 3), overwrite_filter="id >= 30")


def _rewrite(other: Table) -> None:
    assert run(other, Operation.REWRITE_DATA_FILES).changed


def _tag(other: Table) -> None:
    other.manage_snapshots().create_tag(other.metadata.snapshots[0].snapshot_id, "audit").commit()


def _branch(other: Table) -> None:
    other.manage_snapshots().create_branch(other.metadata.snapshots[0].snapshot_id, "dev").commit()


def _change_schema(other: Table) -> None:
    with other.update_schema() as update:
        update.add_column("extra", StringType())


WRITERS: Mapping[str, tuple[Callable[[Table], None], frozenset[int]]] = {
    "append": (_append, IDS | set(range(1000, 1005))),
    "position delete": (_delete_position, IDS - {12}),
    "equality delete": (_delete_equal, IDS - {25}),
    "overwrite": (_overwrite, IDS - set(range(30, 40)) | {2000, 2001, 2002}),
    "rewrite": (_rewrite, IDS),
    "tag": (_tag, IDS),
    "branch": (_branch, IDS),
    "schema change": (_change_schema, IDS),
}
"""What others do meanwhile, and the ids that are there then."""


def check(table: Table, ids: Collection[int], folder: Path) -> None:
    """An independent reader finds the rows, every ref its files, and nothing lies about that nothing names."""
    check_rows(table, ids, folder)
    for name, ref in table.refs().items():
        if name != "main":
            assert table.scan(snapshot_id=ref.snapshot_id).to_arrow()["id"].to_pylist() == [*range(900, 910)]
    assert missing_files(table) == []
    named = {local_path(path) for path in referenced_files(table)}
    assert {path for path in stored_files(table) if path.suffix != ".json"} - {stray_of(table)} == named


def check_rows(table: Table, ids: Collection[int], folder: Path) -> None:
    """DuckDB reads the rows with these ids, and no others."""
    expected = folder / "expected.parquet"
    content = pa.concat_tables(rows(one, 1) for one in sorted(ids))
    if "extra" in table.schema().column_names:
        content = content.append_column("extra", pa.nulls(len(content), pa.string()))
    pq.write_table(content, expected)
    assert oracle_digest(table.metadata_location) == parquet_digest(str(expected))
