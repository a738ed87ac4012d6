"""Each operation does on Trino what the policy says, and an independent reader gets the same rows."""

from __future__ import annotations

import time
from datetime import timedelta

import pyarrow as pa
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import data_files, delete_files, rows_digest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.transforms import IdentityTransform
from trino_server import Server, now_context, put, run, small_files, stored

from airflow_provider_floe.engines.base import SUMMARY_EVIDENCE, TableLocation
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.errors import RetentionRefused, UnsafeLocation, UnsafeOperation
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import ExpireSnapshots, OrphanCleanup, RewriteDataFiles, RewriteManifests
from airflow_provider_floe.tables import Operation, TableRef

pytestmark = pytest.mark.services

REWRITE, MANIFESTS = Operation.REWRITE_DATA_FILES, Operation.REWRITE_MANIFESTS
EXPIRE, ORPHANS = Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES
DAY = timedelta(days=1)


def test_small_files_become_one_for_each_partition(engine: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, 'Tücke\'s "t"'.lower()), 3, parts=("a", "b'c"))
    before, digest = data_files(table), rows_digest(table)
    context = now_context(table)
    result = run(engine, table, REWRITE, RewriteDataFiles(), context)
    assert rows_digest(table) == digest
    after = data_files(table)
    assert (result.changed, result.files_rewritten, result.files_added) == (True, len(before), len(after))
    assert len(after) == 2
    assert result.bytes_added == sum(file.file_size_in_bytes for file in after)
    assert result.bytes_rewritten == sum(file.file_size_in_bytes for file in before)
    assert result.snapshot_after == table.metadata.current_snapshot_id != result.snapshot_before
    (query_id,) = context.remote_jobs
    assert context.commits_begun[-1][SUMMARY_EVIDENCE] == {"trino_query_id": query_id}
    assert context.commits_done == [{"snapshot_id": result.snapshot_after}]
    again = run(engine, table, REWRITE, RewriteDataFiles())
    assert (again.changed, again.snapshot_after) == (False, result.snapshot_after)


def test_deletes_are_applied(engine: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 2, parts=("a", "b"))
    position_delete(table, {data_files(table)[0].file_path: [0, 1, 2]})
    expected = rows_digest(table)  # read now: pyiceberg reads no equality deletes
    gone = pa.table({"id": pa.array([11, 35], pa.int64())})
    equality_delete(table, gone.slice(0, 1), ["id"], partition=("b",))
    equality_delete(table, gone.slice(1, 1), ["id"], partition=("b",))
    expected = [row for row in expected if row[0] not in (11, 35)]
    result = run(engine, table, REWRITE, RewriteDataFiles())
    assert delete_files(table) == []
    assert rows_digest(table) == expected
    assert result.delete_files_removed == 3
    assert result.details["rows"] == len(expected)


@pytest.mark.parametrize(
    ("settings", "properties", "mebibytes"),
    [
        (RewriteDataFiles(), {}, 512),
        (RewriteDataFiles(), {"write.target-file-size-bytes": str(128 * 1024**2)}, 128),
        (RewriteDataFiles(target_file_size_bytes=64 * 1024**2), {"write.target-file-size-bytes": "1"}, 64),
    ],
)
def test_the_target_is_the_size_of_what_is_written_and_the_threshold_three_quarters_of_it(
    engine: TrinoEngine,
    server: Server,
    catalog: RestCatalog,
    namespace: str,
    settings: RewriteDataFiles,
    properties: dict[str, str],
    mebibytes: int,
) -> None:
    table = small_files(catalog, (namespace, "t"), 3, properties=properties)
    result = run(engine, table, REWRITE, settings)
    query = server.query(result.details["query_id"])
    assert f"file_size_threshold => '{mebibytes * 3 * 1024**2 // 4}B'" in query["query"]
    assert query["session"]["catalogProperties"] == {"lake": {"target_max_file_size": f"{mebibytes * 1024**2}B"}}


def test_a_filter_over_any_column_rewrites_only_files_that_may_match(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 6)
    digest = rows_digest(table)
    others = {file.file_path for file in data_files(table)}
    result = run(engine, table, REWRITE, RewriteDataFiles(filter="id >= 30"))
    assert result.files_rewritten == 3
    assert len(others & {file.file_path for file in data_files(table)}) == 3
    assert rows_digest(table) == digest


def test_an_evolved_table_in_a_nested_namespace_with_branch_and_tag(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    catalog.create_namespace((namespace, "inner"))
    table = small_files(catalog, (namespace, "inner", "t"), 2, parts=("a", "b"))
    tagged = table.metadata.current_snapshot_id
    assert tagged is not None
    table.manage_snapshots().create_tag(tagged, "keep").create_branch(tagged, "side").commit()
    with table.update_schema() as schema:
        schema.rename_column("text", "words")
    with table.update_spec() as spec:
        spec.add_field("words", IdentityTransform(), "by_words")
    table.append(pa.table({"id": [1000, 1001], "part": ["a", "a"], "words": ["x", "y"]}))
    table.append(pa.table({"id": [1002, 1003], "part": ["a", "a"], "words": ["x", "y"]}))
    digest = rows_digest(table)
    result = run(engine, table, REWRITE, RewriteDataFiles())
    assert result.changed
    assert rows_digest(table) == digest
    refs = table.metadata.refs
    assert refs["keep"].snapshot_id == refs["side"].snapshot_id == tagged


def test_manifests_become_fewer_and_hold_the_same_files(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 5)
    digest, files = rows_digest(table), {file.file_path for file in data_files(table)}
    manifests = len(snapshot_manifests(table))
    result = run(engine, table, MANIFESTS, RewriteManifests())
    assert (result.manifests_rewritten, result.manifests_added) == (manifests, len(snapshot_manifests(table))) == (5, 1)
    assert {file.file_path for file in data_files(table)} == files
    assert rows_digest(table) == digest
    assert not run(engine, table, MANIFESTS, RewriteManifests()).changed


def test_expiry_deletes_what_became_unreachable_and_nothing_else(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 3)
    table.overwrite(table.scan().to_arrow())
    tagged = table.metadata.snapshots[1].snapshot_id
    table.manage_snapshots().create_tag(tagged, "keep").commit()
    digest, before = rows_digest(table), stored(table)
    kept = rows_digest_at(table, tagged)
    time.sleep(1.1)
    context = now_context(table)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(seconds=1))
    result = run(engine, table, EXPIRE, settings, context)
    assert {s.snapshot_id for s in table.metadata.snapshots} == {tagged, table.metadata.current_snapshot_id}
    assert rows_digest(table) == digest
    assert rows_digest_at(table, tagged) == kept
    assert result.snapshots_expired == len(context.commits_begun[-1]["snapshot_ids"])
    deleted = before - stored(table)
    assert result.files_deleted == len(deleted) > 0
    assert {deletion.path for deletion in context.journal.deletions} == set(context.journal.deleted) == deleted
    assert result.bytes_deleted > 0
    assert not run(engine, table, EXPIRE, settings).changed


def rows_digest_at(table, snapshot_id):
    return sorted(tuple(row.values()) for row in table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist())


def test_the_last_snapshots_and_those_that_table_properties_keep_stay(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 3)
    time.sleep(6)  # further apart than what a server's start of a query may differ
    table.append(table.scan().to_arrow())
    table.append(table.scan().to_arrow())
    ids = [s.snapshot_id for s in table.metadata.snapshots]
    time.sleep(1.1)
    settings = ExpireSnapshots(retain_last=2, max_snapshot_age=timedelta(seconds=1))
    with table.transaction() as transaction:
        transaction.set_properties({"history.expire.min-snapshots-to-keep": "5"})
    assert not run(engine, table, EXPIRE, settings).changed
    with table.transaction() as transaction:
        transaction.remove_properties("history.expire.min-snapshots-to-keep")
    result = run(engine, table, EXPIRE, settings)
    assert [s.snapshot_id for s in table.metadata.snapshots] == ids[3:]
    assert result.snapshots_expired == 3


@pytest.mark.parametrize(
    "cap",
    [{"max_delete_files": 1}, {"max_delete_bytes": 1}, {"max_delete_share": 0.01}],
    ids=lambda cap: next(iter(cap)),
)
def test_a_cap_halts_before_trino_is_asked(
    engine: TrinoEngine, later_engine: TrinoEngine, catalog: RestCatalog, namespace: str, cap: dict[str, float]
) -> None:
    table = small_files(catalog, (namespace, "t"), 2)
    table.overwrite(table.scan().to_arrow())
    for number in range(3):
        put(table, f"data/stray-{number}.parquet")
    before = stored(table)
    context = now_context(table, days=9)
    with pytest.raises(UnsafeOperation, match="would be exceeded"):
        run(later_engine, table, EXPIRE, ExpireSnapshots(retain_last=1, max_snapshot_age=DAY, **cap), context)
    with pytest.raises(UnsafeOperation, match="would be exceeded"):
        run(later_engine, table, ORPHANS, OrphanCleanup(**cap), context)
    assert stored(table) == before
    assert context.remote_jobs == []


def test_orphans_go_and_everything_else_stays(later_engine: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 3, parts=("a", "b"))
    before, digest = stored(table), rows_digest(table)
    strays = {put(table, name) for name in ("data/a.parquet", "data/p=x y/é+(1).parquet", "metadata/lost-m0.avro")}
    context = now_context(table, days=9)
    result = run(later_engine, table, ORPHANS, OrphanCleanup(), context)
    assert stored(table) == before
    assert (result.files_deleted, result.bytes_deleted) == (3, 15)
    assert set(context.journal.deleted) == strays == {deletion.path for deletion in context.journal.deletions}
    assert rows_digest(table) == digest
    assert not run(later_engine, table, ORPHANS, OrphanCleanup(), context).changed


def test_young_files_stay_although_the_server_has_no_minimum(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 1)
    stray = put(table, "data/young.parquet")
    assert not run(engine, table, ORPHANS, OrphanCleanup(retention_period_in_days=1)).changed
    assert stray in stored(table)


def test_what_trino_would_not_spare_is_refused(later_engine: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 1)
    for name in ("metadata/00000-old.metadata.json", "data/stray.parquet"):
        put(table, name)
    before = stored(table)
    with pytest.raises(UnsafeOperation, match="never removed"):
        run(later_engine, table, ORPHANS, OrphanCleanup(), now_context(table, days=9))
    neighbour = TableLocation(TableRef("lake", (namespace,), "other"), "u", (f"{table.location()}/data/other",))
    with pytest.raises(UnsafeLocation, match="other"):
        run(later_engine, table, ORPHANS, OrphanCleanup(), now_context(table, days=9, others=[neighbour]))
    data = data_files(table)[0].file_path
    table.io.delete(data)
    with pytest.raises(UnsafeOperation, match="partial"):
        run(later_engine, table, ORPHANS, OrphanCleanup(), now_context(table, days=9))
    assert stored(table) == before - {data}


def test_clocks_that_differ_are_no_ground_to_delete_by_age(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 1)
    stray = put(table, "data/stray.parquet")
    with pytest.raises(UnsafeOperation, match="clocks"):
        run(engine, table, ORPHANS, OrphanCleanup(), now_context(table, days=9))
    assert stray in stored(table)


def test_a_table_that_forbids_deletion(later_engine: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 2, properties={"gc.enabled": "false"})
    for operation, settings in ((EXPIRE, ExpireSnapshots()), (ORPHANS, OrphanCleanup())):
        with pytest.raises((RetentionRefused, UnsafeOperation, Exception), match="gc"):
            run(later_engine, table, operation, settings, now_context(table, days=30))


def test_trino_reads_what_the_local_engine_writes(server: Server, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 2, parts=("a", "b"))
    for value in (11, 35):
        equality_delete(table, pa.table({"id": pa.array([value], pa.int64())}), ["id"], partition=("b",))
    name = f'"lake"."{namespace}"."t"'
    expected = sorted(server.rows(f"SELECT id FROM {name}"))
    assert len(expected) == 38
    local = LocalEngine(memory_limit_bytes=2**28)
    for operation, settings in ((MANIFESTS, RewriteManifests()), (REWRITE, RewriteDataFiles())):
        assert run(local, table, operation, settings).changed
        assert sorted(server.rows(f"SELECT id FROM {name}")) == expected
