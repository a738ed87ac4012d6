"""Each catalog from the connection to the records: create, list, load, assess, plan, execute, or refuse with reason."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from catalog_tables import Lake, maintain
from harness.catalogs.base import NAME, CatalogUnderTest, Place
from harness.tables import context_for, data_files, request_for, rows_digest
from pyiceberg.table import Table

from airflow_provider_floe.engines.local import orphans
from airflow_provider_floe.errors import RetentionRefused, TableNotFound
from airflow_provider_floe.hooks.floe import FloeHook
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.planning.model import Disposition
from airflow_provider_floe.policies.model import OrphanCleanup
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation, TableRef


def stored(table: Table) -> set[str]:
    return {file.path for batch in list_files(table.io, table.location()) for file in batch}


def test_each_operation_runs_or_is_refused_as_documented(lake: Lake, under_test: CatalogUnderTest) -> None:
    table = lake.small_files()
    digest = rows_digest(table)
    env = lake.environment()
    result = maintain(env, table)
    assert not result.verdict.failed, result.verdict.failures
    decided = {item.operation: item for item in result.plan.items}
    for operation, words in under_test.refuses.items():
        assert decided[operation].disposition is Disposition.REFUSED
        assert words in str(decided[operation].reasons)
    changed = {record.operation for record in result.records if record.result and record.result.changed}
    assert changed >= {Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS} - set(under_test.refuses)
    assert {record.status for record in result.records} <= {OperationStatus.SUCCESS, OperationStatus.SKIPPED}
    assert len(data_files(table)) == 1
    assert len(table.metadata.snapshots) == 1
    assert rows_digest(table) == digest

    head = table.metadata.current_snapshot_id
    again = maintain(env, table)
    assert not again.verdict.failed, again.verdict.failures
    assert table.metadata.current_snapshot_id == head
    assert not [record for record in again.records if record.result and record.result.changed]
    assert rows_digest(table) == digest


def test_orphans_are_removed_or_refused_as_documented(lake: Lake, under_test: CatalogUnderTest) -> None:
    table = lake.small_files(files=2)
    before, digest = stored(table), rows_digest(table)
    stray = f"{table.location()}/data/stray.parquet"
    with table.io.new_output(stray).create() as stream:
        stream.write(b"stray")
    later = context_for(table, time=datetime.now(UTC) + timedelta(days=10))
    if Operation.REMOVE_ORPHAN_FILES in under_test.refuses:
        with pytest.raises(RetentionRefused, match=r"gc\.enabled=false"):
            orphans.run(request_for(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup()), later, 0)
        assert stored(table) == {*before, stray}
        return
    result = orphans.run(request_for(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup()), later, 0)
    assert result.files_deleted == 1
    assert stored(table) == before
    assert rows_digest(table) == digest


def test_manifests_are_rewritten(lake: Lake) -> None:
    table = lake.small_files(files=5, **{"commit.manifest-merge.enabled": "false"})
    digest = rows_digest(table)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(table.io)) == 5
    env = lake.environment()
    result = maintain(env, table, Operation.REWRITE_MANIFESTS)
    assert [record.status for record in result.records] == [OperationStatus.SUCCESS]
    head = table.current_snapshot()
    assert head is not None
    assert len(head.manifests(table.io)) == 1
    assert rows_digest(table) == digest


def test_names_of_every_kind_are_listed_and_loaded(lake: Lake, under_test: CatalogUnderTest) -> None:
    namespaces = [(lake.namespace,)]
    if under_test.nested:
        namespaces += [(lake.namespace, "inner"), (lake.namespace, "inner", "most")]
        namespaces += [(lake.namespace, level) for level in under_test.levels]
    made = set()
    for namespace in namespaces:
        if len(namespace) > 1:
            lake.catalog.create_namespace(namespace)
        for name in ("plain", *under_test.names):
            lake.small_files(name, 0, namespace=namespace)
            made.add(TableRef(NAME, namespace, name))
    assert {namespace for namespace in lake.client.namespaces() if namespace[0] == lake.namespace} == set(namespaces)
    assert set(lake.client.tables(namespaces)) == made
    assert {table for table in lake.client.tables() if table.namespace[0] == lake.namespace} == made
    for ref in made:
        assert lake.client.load(ref).name() == ref.identifier
        assert TableRef.parse(str(ref)) == ref == TableRef.from_uri(ref.uri())


def test_a_table_of_an_odd_name_is_maintained(lake: Lake, under_test: CatalogUnderTest) -> None:
    if not under_test.names:
        with pytest.raises(Exception, match=r"(?i)valid|must|name"):
            lake.small_files("ünï.cödé", 0)
        return
    namespace = (lake.namespace, under_test.levels[0])
    lake.catalog.create_namespace(namespace)
    table = lake.small_files(under_test.names[0], 4, namespace=namespace)
    digest = rows_digest(table)
    result = maintain(lake.environment(), table)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(table)) == 1
    assert rows_digest(table) == digest


def test_what_is_not_there_is_not_found(lake: Lake) -> None:
    for ref in (TableRef(NAME, (lake.namespace,), "nope"), TableRef(NAME, ("no_such_namespace",), "nope")):
        with pytest.raises(TableNotFound, match=re.escape(str(ref))):
            lake.client.load(ref)
    assert list(lake.client.tables([("no_such_namespace",)])) == []


def test_the_test_button_names_server_catalog_namespaces_and_latency(lake: Lake, place: Place) -> None:
    good, text = FloeHook("lake").test_connection()
    assert good, text
    for words in (f"catalog {NAME!r}", lake.client.kind, "namespace", " ms"):
        assert words in text
    assert json.dumps(place.connection.get("password") or "nothing secret")[1:-1] not in text
