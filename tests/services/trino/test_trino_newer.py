"""One case of each operation on a newer Trino, which can do more and reports what it did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pytest
from harness.merge_on_read import equality_delete
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.tables import data_files, rows, rows_digest
from pyiceberg.catalog.rest import RestCatalog
from trino_server import Server, now_context, put, run, small_files, stored

from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.policies.model import ExpireSnapshots, OrphanCleanup, RewriteDataFiles, RewriteManifests
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def newer() -> Iterator[TrinoEngine]:
    with use("s3", "rest", "trino-483") as services:
        yield Server(services["trino-483"], rest_catalog(services)).engine({}, clock_tolerance=timedelta.max)


def test_it_says_what_it_can_do_more(newer: TrinoEngine) -> None:
    capabilities = newer.probe()
    assert {operation for operation, capability in capabilities.operations.items() if not capability.supported} == {
        Operation.REWRITE_POSITION_DELETE_FILES
    }
    assert set(capabilities.operation(Operation.EXPIRE_SNAPSHOTS).refused) == {"expireSnapshotId", "quarantine"}


def test_rewrites_report_the_numbers_of_the_metadata(newer: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 3, parts=("a", "b"))
    digest = rows_digest(table)
    result = run(newer, table, Operation.REWRITE_DATA_FILES, RewriteDataFiles())
    assert rows_digest(table) == digest
    assert (result.files_rewritten, result.files_added) == (6, len(data_files(table))) == (6, 2)
    assert result.details["reported"]["rewritten_data_files_count"] == 6
    assert result.details["reported"]["added_data_files_count"] == 2


def test_manifests(newer: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 4)
    digest = rows_digest(table)
    result = run(newer, table, Operation.REWRITE_MANIFESTS, RewriteManifests())
    assert (result.manifests_rewritten, result.manifests_added) == (4, 1)
    assert rows_digest(table) == digest


def test_expiry_below_what_the_table_asks_for_with_its_unused_schemas(
    newer: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 3, properties={"history.expire.min-snapshots-to-keep": "10"})
    with table.update_schema() as schema:
        schema.rename_column("text", "words")
    table.overwrite(table.scan().to_arrow())
    digest, before = rows_digest(table), stored(table)
    time.sleep(1.1)
    settings = ExpireSnapshots(
        retain_last=1,
        max_snapshot_age=timedelta(seconds=1),
        allow_below_table_retention=True,
        clean_expired_metadata=True,
    )
    result = run(newer, table, Operation.EXPIRE_SNAPSHOTS, settings)
    assert len(table.metadata.snapshots) == len(table.metadata.schemas) == 1
    assert result.files_deleted == len(before - stored(table)) > 0
    assert rows_digest(table) == digest


def test_schemas_stay_for_columns_that_equality_deletes_compare(
    newer: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 2)
    equality_delete(table, pa.table({"text": ["3"]}), ["text"])
    with table.update_schema() as update:
        update.delete_column("text")
    table.append(rows(700, 10).drop(["text"]))
    time.sleep(1.1)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(seconds=1), clean_expired_metadata=True)
    result = run(newer, table, Operation.EXPIRE_SNAPSHOTS, settings)
    assert "Trino would also remove schema 0" in result.message
    assert len(table.metadata.snapshots) == 1
    assert [schema.schema_id for schema in table.metadata.schemas] == [0, 1]
    again = run(newer, table, Operation.EXPIRE_SNAPSHOTS, settings)
    assert (again.changed, "schema 0" in again.message) == (False, True)


def test_orphans(newer: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 2)
    before = stored(table)
    put(table, "data/stray.parquet")
    result = run(newer, table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(), now_context(table, days=9))
    assert result.files_deleted == 1
    assert stored(table) == before
