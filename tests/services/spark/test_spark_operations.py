"""Each operation does on Spark what the policy says, and an independent reader gets the same rows."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import BY_PART, SCHEMA, append_files, data_files, delete_files, rows, rows_digest
from pyiceberg.table import Table
from spark_submission import Spark, make_files_look_older, now_context, run

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY
from airflow_provider_floe.errors import RetentionRefused, UnsafeOperation
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.iceberg.reachability import reachable
from airflow_provider_floe.policies.model import (
    ExpireSnapshots,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteIf,
    RewriteManifests,
)

pytestmark = pytest.mark.services


def partitioned(spark: Spark, *name: str, files: int = 3) -> Table:
    table = spark.catalog.create_table(name, schema=SCHEMA, partition_spec=BY_PART, properties={"format-version": "2"})
    return append_files(table, files, parts=("a", "b'c"))


def stored(table: Table) -> set[str]:
    return {file.path for batch in list_files(table.io, table.location()) for file in batch}


def put(table: Table, name: str) -> str:
    path = f"{table.location()}/{name}"
    with table.io.new_output(path).create() as stream:
        stream.write(b"stray")
    return path


def test_rewrite_applies_deletes_and_its_numbers_are_those_of_the_metadata(spark: Spark, namespace: str) -> None:
    table = partitioned(spark, namespace, "odd `name`")
    position_delete(table, {data_files(table)[0].file_path: [0, 3]})
    with table.update_spec() as update:
        update.remove_field("part")
    table.append(rows(500, 10, "a"))
    before, digest, known = data_files(table), rows_digest(table), stored(table)
    context = now_context(table)
    settings = RewriteDataFiles(partial_progress_enabled=True, remove_dangling_deletes=True)

    result = run(spark.engine(), table, settings, context, operation_id="op-rewrite")

    assert rows_digest(table) == digest
    after = data_files(table)
    kept = {file.file_path for file in before} & {file.file_path for file in after}
    rewritten = [file for file in before if file.file_path not in kept]
    added = [file for file in after if file.file_path not in kept]
    assert {file.spec_id for file in added} == {table.spec().spec_id}
    assert (result.files_rewritten, result.files_added) == (len(rewritten), len(added))
    assert result.bytes_rewritten == sum(file.file_size_in_bytes for file in rewritten)
    assert result.bytes_added == sum(file.file_size_in_bytes for file in added)
    assert len(rewritten) >= 6
    assert not delete_files(table)
    assert result.delete_files_removed == 1
    made = [table.metadata.snapshot_by_id(one) for one in result.details["snapshots"]]
    assert all(one and one.summary and one.summary[OPERATION_ID_PROPERTY] == "op-rewrite" for one in made)
    assert result.snapshot_after == table.metadata.current_snapshot_id
    assert len(context.remote_jobs) == 1
    assert context.commits_begun[0]["snapshot_before"] == result.snapshot_before
    assert context.commits_done[-1]["snapshot_after"] == result.snapshot_after
    assert not [path for path in stored(table) - known if "/_floe/" in path]


def test_ordering_by_z_curve_happens_once(spark: Spark, namespace: str) -> None:
    table = partitioned(spark, namespace, "curve")
    equality_delete(table, pa.table({"id": pa.array([3, 23], pa.int64())}), ["id"], partition=("a",))
    settings = RewriteDataFiles(strategy="ZORDER", z_order_columns=["id", "text"], filter="part = 'a'")

    result = run(spark.engine(), table, settings)

    assert (result.files_rewritten, result.files_added) == (3, 1)
    assert [file.record_count for file in data_files(table) if file.partition[0] == "a"] == [28]
    snapshot, idle = table.metadata.current_snapshot_id, now_context(table)
    assert not run(spark.engine(), table, settings, idle).changed
    assert (table.metadata.current_snapshot_id, idle.remote_jobs) == (snapshot, [])


def test_manifests_are_chosen_ordered_and_staged_as_the_policy_says(spark: Spark, namespace: str) -> None:
    table = partitioned(spark, namespace, "manifests")
    table.append(rows(900, 5, "a"))
    spared = [one.manifest_path for one in snapshot_manifests(table) if one.added_rows_count == 5]
    digest, files = rows_digest(table), {file.file_path for file in data_files(table)}
    staging = f"{table.location()}/metadata/staging"
    settings = RewriteManifests(
        rewrite_if=RewriteIf(content="DATA", added_rows_count=10), sort_by=["part"], staging_location=staging
    )

    result = run(spark.engine(), table, settings, operation_id="op-manifests")

    assert (result.manifests_rewritten, result.manifests_added) == (6, 1)
    manifests = [one.manifest_path for one in snapshot_manifests(table)]
    assert spared[0] in manifests
    assert len(manifests) == 2
    assert {file.file_path for file in data_files(table)} == files
    assert rows_digest(table) == digest
    summary = table.metadata.current_snapshot().summary  # type: ignore[union-attr]
    assert summary[OPERATION_ID_PROPERTY] == "op-manifests"
    assert not run(spark.engine(), table, settings).changed


def test_expiry_deletes_what_was_foretold_and_nothing_else(spark: Spark, namespace: str) -> None:
    table = partitioned(spark, namespace, "history", files=2)
    tagged = table.metadata.snapshots[1].snapshot_id
    table.manage_snapshots().create_tag(tagged, "audit").commit()
    table.overwrite(rows(700, 10, "a"))
    digest, before = rows_digest(table), stored(table)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(days=1))
    refused = now_context(table, days=5)
    with pytest.raises(UnsafeOperation, match="maxDeleteFiles=1"):
        run(spark.engine(), table, settings.model_copy(update={"max_delete_files": 1}), refused)
    assert (stored(table), refused.remote_jobs) == (before, [])

    context = now_context(table, days=5)
    count = len(table.metadata.snapshots)
    result = run(spark.engine(), table, settings, context)

    assert {one.snapshot_id for one in table.metadata.snapshots} == {tagged, table.metadata.current_snapshot_id}
    assert result.snapshots_expired == count - 2
    gone = before - stored(table)
    assert {deletion.path for deletion in context.journal.deletions} == gone == set(context.journal.deleted)
    assert (result.files_deleted, result.bytes_deleted) == (
        len(gone),
        sum(deletion.size_bytes for deletion in context.journal.deletions),
    )
    assert {file.path for file in reachable(table)} <= stored(table)
    assert rows_digest(table) == digest
    assert table.scan(snapshot_id=tagged).to_arrow().num_rows == 20


def test_schemas_stay_for_columns_that_equality_deletes_compare(spark: Spark, namespace: str) -> None:
    table = partitioned(spark, namespace, "dropped", files=1)
    equality_delete(table, pa.table({"text": ["3"]}), ["text"], partition=("a",))
    with table.update_schema() as update:
        update.delete_column("text")
    table.append(rows(700, 10, "a").drop(["text"]))
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(days=1), clean_expired_metadata=True)
    result = run(spark.engine(), table, settings, now_context(table, days=5))
    assert "Spark would also remove schema 0" in result.message
    assert result.snapshots_expired > 0
    assert [schema.schema_id for schema in table.metadata.schemas] == [0, 1]
    again = run(spark.engine(), table, settings, now_context(table, days=5))
    assert (again.changed, "schema 0" in again.message) == (False, True)


def test_a_branch_by_whose_age_spark_would_expire_more_is_refused(spark: Spark, namespace: str) -> None:
    table = partitioned(spark, namespace, "branches", files=2)
    head = table.metadata.current_snapshot_id
    assert head is not None
    table.manage_snapshots().create_branch(head, "short", max_snapshot_age_ms=1, min_snapshots_to_keep=1).commit()
    table.append(rows(700, 10, "a"))
    context = now_context(table, days=5)
    with pytest.raises(RetentionRefused, match="branch short sets a snapshot age of its own"):
        run(spark.engine(), table, ExpireSnapshots(retain_last=2, max_snapshot_age=timedelta(days=1)), context)
    assert not context.remote_jobs


def test_orphans_go_but_not_metadata_files_nor_what_is_excluded(
    spark: Spark, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = partitioned(spark, namespace, "orphans", files=1)
    orphans = {put(table, "data/part=a/lost 'file'.parquet"), put(table, "data/lost.bin")}
    kept = {put(table, "data/checkpoint.keep"), put(table, "metadata/00007-lost.metadata.json")}
    known, digest = stored(table), rows_digest(table)
    settings = OrphanCleanup(exclude_patterns=["*.keep"], equal_schemes={"s3a,s3n": "s3"})
    make_files_look_older(monkeypatch, days=10)
    context = now_context(table)

    result = run(spark.engine(), table, settings, context)

    assert known - stored(table) == orphans
    assert kept <= stored(table)
    assert (result.files_deleted, result.bytes_deleted) == (2, 2 * len(b"stray"))
    assert set(context.journal.deleted) == orphans
    assert rows_digest(table) == digest
