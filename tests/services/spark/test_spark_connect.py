"""The same over Spark Connect, which gets at no Java classes, and to which Spark 3.5 is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from harness.merge_on_read import position_delete
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.tables import SCHEMA, append_files, data_files, rows_digest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import Table
from spark_submission import CATALOG, make_files_look_older, now_context, run

from airflow_provider_floe.engines.spark.connect import ConnectRoute
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.errors import (
    ConfigurationError,
    EngineUnavailable,
    OperationCancelled,
    UnsupportedSetting,
)
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import (
    SETTINGS_MODELS,
    ExpireSnapshots,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
)

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[SparkEngine, RestCatalog]]:
    with use("s3", "rest", "spark-connect-4.1") as services:
        facts = services["spark-connect-4.1"]
        yield (
            SparkEngine(ConnectRoute(facts["url"], "connect_test"), {CATALOG: facts["catalog"]}),
            rest_catalog(services),
        )


def small(catalog: RestCatalog, files: int = 4) -> Table:
    namespace = f"connect_{uuid4().hex[:8]}"
    catalog.create_namespace(namespace)
    return append_files(catalog.create_table((namespace, "a table"), schema=SCHEMA), files)


def stored(table: Table) -> set[str]:
    return {file.path for batch in list_files(table.io, table.location()) for file in batch}


def test_each_operation_over_connect(server: tuple[SparkEngine, RestCatalog], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, catalog = server
    table = small(catalog)
    position_delete(table, {data_files(table)[0].file_path: [0, 3]})
    digest, before = rows_digest(table), data_files(table)

    manifests = len(snapshot_manifests(table))
    result = run(engine, table, RewriteManifests())
    assert result.manifests_rewritten == manifests - 1, "the only delete manifest stays"
    assert len(snapshot_manifests(table)) == 2

    result = run(engine, table, RewriteDataFiles(remove_dangling_deletes=True))
    assert (result.files_rewritten, result.files_added) == (len(before), 1)
    assert result.bytes_rewritten == sum(file.file_size_in_bytes for file in before)
    assert rows_digest(table) == digest

    known, context = stored(table), now_context(table, days=5)
    result = run(engine, table, ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(days=1)), context)
    assert [one.snapshot_id for one in table.metadata.snapshots] == [table.metadata.current_snapshot_id]
    assert set(context.journal.deleted) == known - stored(table)
    assert result.files_deleted == len(known - stored(table)) > len(before)

    known = stored(table)
    for name in ("data/lost.parquet", "data/kept.tmp"):
        with table.io.new_output(f"{table.location()}/{name}").create() as stream:
            stream.write(b"stray")
    make_files_look_older(monkeypatch, days=10)
    result = run(engine, table, OrphanCleanup(exclude_patterns=["*.tmp"]))
    assert (result.files_deleted, result.bytes_deleted) == (1, 5)
    assert stored(table) == known | {f"{table.location()}/data/kept.tmp"}
    assert rows_digest(table) == digest


def test_every_setting_is_honoured_or_refused(server: tuple[SparkEngine, RestCatalog]) -> None:
    engine, catalog = server
    found = engine.probe()
    assert found.version.startswith("Spark 4.1")
    for operation, model in SETTINGS_MODELS.items():
        capability = found.operations[operation]
        assert capability.supported, capability.reason
        wires = {field.alias or name for name, field in model.model_fields.items()}
        assert capability.honoured | capability.refused.keys() == wires
        assert not capability.honoured & capability.refused.keys()
    with pytest.raises(UnsupportedSetting, match=r"sortBy=\['id'\].*spark-submit"):
        run(engine, small(catalog, 1), RewriteManifests(sort_by=["id"]))


def test_cancelling_interrupts_what_the_server_does(server: tuple[SparkEngine, RestCatalog]) -> None:
    engine, catalog = server
    table = small(catalog)
    snapshot = table.metadata.current_snapshot_id

    def cancelled() -> None:
        if context.remote_jobs:
            raise OperationCancelled("the task was cleared")

    context = now_context(table, on_checkpoint=cancelled)
    with pytest.raises(OperationCancelled, match="cleared"):
        run(engine, table, RewriteDataFiles(), context)
    assert table.metadata.current_snapshot_id == snapshot
    assert engine.cancel(context.remote_jobs[0]), "its session is closed"


def test_what_does_not_answer_or_is_too_old_is_named() -> None:
    gone = ConnectRoute("sc://127.0.0.1:9/;token=hush", "connect_test")
    with pytest.raises(EngineUnavailable, match="'connect_test'") as caught:
        gone.probe(["lake"], {})
    assert "hush" not in str(caught.value)
    with use("s3", "rest", "spark-connect-3.5") as services:
        old = ConnectRoute(services["spark-connect-3.5"]["url"], "connect_test")
        with pytest.raises(ConfigurationError, match=r"Spark Connect 3\.5.*spark-submit"):
            old.probe(["lake"], {})
