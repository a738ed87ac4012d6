"""Each operation on a Spark behind Livy: what it does to the table, what it tells, and what others may see of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from harness.merge_on_read import position_delete
from harness.tables import BY_PART, SCHEMA, append_files, data_files, delete_files, rows, rows_digest
from livy_spark import CATALOG, LIVY, Livy, now_context, request
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY, ResumableEngine
from airflow_provider_floe.iceberg import listing, orphan_search
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import ExpireSnapshots, OrphanCleanup, RewriteDataFiles, RewriteManifests

pytestmark = pytest.mark.services


def partitioned(livy: Livy, *name: str, files: int = 3) -> Table:
    table = livy.catalog.create_table(name, schema=SCHEMA, partition_spec=BY_PART, properties={"format-version": "2"})
    return append_files(table, files, parts=("a", "b'c"))


def stored(table: Table) -> set[str]:
    return {file.path for batch in list_files(table.io, table.location()) for file in batch}


def test_the_spark_behind_livy_is_asked_what_it_has(livy: Livy) -> None:
    _, *name = livy.extra["floe_livy_probe_table"].split(".")
    table = livy.catalog.load_table(tuple(name))
    engine = livy.engine()
    assert isinstance(engine, ResumableEngine)
    found = engine.probe()
    assert found.version == f"Spark {livy.facts['spark']} (Livy, connection {LIVY})"
    assert all(capability.supported for capability in found.operations.values()), found.operations
    assert found.catalogs is not None
    assert not found.catalogs[CATALOG].refusal
    assert not [path for path in stored(table) if "/_floe/" in path]


def test_rewrite_applies_deletes_and_tells_what_the_metadata_says(livy: Livy, namespace: str) -> None:
    table = partitioned(livy, namespace, "odd `name`")
    position_delete(table, {data_files(table)[0].file_path: [0, 3]})
    table.append(rows(500, 10, "a"))
    before, digest = data_files(table), rows_digest(table)
    context, asked = now_context(table), request(table, RewriteDataFiles(remove_dangling_deletes=True))

    result = livy.engine().execute(asked, context)

    table.refresh()
    assert rows_digest(table) == digest
    after = data_files(table)
    kept = {file.file_path for file in before} & {file.file_path for file in after}
    assert (result.files_rewritten, result.files_added) == (len(before) - len(kept), len(after) - len(kept))
    assert result.files_rewritten >= 6
    assert not delete_files(table)
    made = [table.metadata.snapshot_by_id(one) for one in result.details["snapshots"]]
    assert {one.summary[OPERATION_ID_PROPERTY] for one in made if one and one.summary} == {asked.operation_id}
    assert not [path for path in stored(table) if "/_floe/" in path]
    (batch,) = livy.batches(asked.operation_id)
    assert batch["state"] == "success"
    (told,) = context.jobs.values()
    assert told.state["batch"] == batch["id"]
    assert told.url == f"{livy.facts['url']}/ui/batch/{batch['id']}/log"
    second = now_context(table)
    assert not livy.engine().execute(request(table, RewriteDataFiles()), second).changed
    assert not second.jobs, "nothing to do asks nothing of Livy"


def test_manifests_are_ordered_as_the_policy_says(livy: Livy, namespace: str) -> None:
    table = partitioned(livy, namespace, "manifests")
    digest = rows_digest(table)
    result = livy.engine().execute(request(table, RewriteManifests(sort_by=["part"])), now_context(table))
    table.refresh()
    assert (result.manifests_rewritten, result.manifests_added) == (6, 1)
    assert len(snapshot_manifests(table)) == 1
    assert rows_digest(table) == digest


def test_expiry_deletes_what_was_foretold_and_nothing_else(livy: Livy, namespace: str) -> None:
    table = partitioned(livy, namespace, "history", files=2)
    tagged = table.metadata.snapshots[1].snapshot_id
    table.manage_snapshots().create_tag(tagged, "audit").commit()
    table.overwrite(rows(700, 10, "a"))
    count, digest, before = len(table.metadata.snapshots), rows_digest(table), stored(table)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(days=1))
    context = now_context(table, days=5)

    result = livy.engine().execute(request(table, settings), context)

    table.refresh()
    assert {one.snapshot_id for one in table.metadata.snapshots} == {tagged, table.metadata.current_snapshot_id}
    assert result.snapshots_expired == count - 2
    gone = before - stored(table)
    assert gone == set(context.journal.deleted)
    assert result.files_deleted == len(gone)
    assert rows_digest(table) == digest


def test_orphans_go_and_the_table_keeps_its_files(livy: Livy, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = partitioned(livy, namespace, "orphans", files=1)
    orphan = f"{table.location()}/data/part=a/lost 'file'.parquet"
    with table.io.new_output(orphan).create() as stream:
        stream.write(b"stray")
    known, digest = stored(table), rows_digest(table)
    monkeypatch.setattr(
        orphan_search,
        "list_files",
        lambda io, prefix: (
            [file._replace(modified=file.modified and file.modified - timedelta(days=10)) for file in batch]
            for batch in listing.list_files(io, prefix)
        ),
    )
    context = now_context(table)

    result = livy.engine().execute(request(table, OrphanCleanup()), context)

    assert known - stored(table) == {orphan} == set(context.journal.deleted)
    assert (result.files_deleted, result.bytes_deleted) == (1, len(b"stray"))
    assert rows_digest(table) == digest
