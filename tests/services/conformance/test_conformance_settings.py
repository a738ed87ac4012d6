"""Settings whose effect other cases do not show; what an engine cannot honour, its plan refuses by name.

A unit test holds that no setting of a policy is without a case among these and those beside them.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from conformance import DELETES, EXPIRE, ORPHANS, REWRITE, Target
from conformance_lake import Lake, stored
from harness.merge_on_read import position_delete
from harness.tables import append_files, data_files, delete_files, rows
from pyarrow.fs import S3FileSystem
from pyiceberg.table import Table

from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).parents[3]
COLUMNS = {
    "local": "local",
    "spark-3.5": "Spark 3.5 by spark-submit",
    "spark-4.1": "Spark 4.1 by Spark Connect",
    "trino-476": "Trino 476",
    "trino-483": "Trino 483",
}
"""Of the page, by engine of the suite."""


def refused(target: Target, table: Table, operation: Operation, settings: Mapping[str, Any], *names: str) -> bool:
    """Whether the engine does not honour one of the settings; the plan then names each such one."""
    capability = target.engine.probe().operation(operation)
    if not capability.supported:
        target.refuses(capability.reason, table, operation, settings)
        return True
    missing = [name for name in names if name in capability.refused]
    for name in missing:
        target.refuses(f"setting {name}=", table, operation, settings)
    return bool(missing)


def test_groups_of_files_are_as_large_as_the_policy_says(target: Target, lake: Lake) -> None:
    table = lake.table(0)
    for number in range(6):  # of texts that do not compress, so that three files become one of three times the size
        texts = [uuid4().hex for _ in range(3000)]
        table.append(pa.table({"id": range(3000 * number, 3000 * (number + 1)), "part": ["a"] * 3000, "text": texts}))
    size = max(file.file_size_in_bytes for file in data_files(table))
    settings = {"maxFileGroupSizeBytes": 3 * size + size // 2, "maxConcurrentFileGroupRewrites": 1}
    if refused(target, table, REWRITE, settings, "maxFileGroupSizeBytes", "maxConcurrentFileGroupRewrites"):
        return
    done = target.maintain(table, REWRITE, settings)
    assert sorted(file.record_count for file in done.after.data.values()) == [9000, 9000]


@pytest.mark.parametrize(("order", "first"), [("FILES_ASC", "few"), ("FILES_DESC", "many")])
def test_groups_are_rewritten_in_the_order_of_the_policy(target: Target, lake: Lake, order: str, first: str) -> None:
    table = append_files(lake.table(2, parts=("few", "many")), 2, parts=("many",))
    settings = {
        "rewriteJobOrder": order,
        "partialProgressEnabled": True,
        "partialProgressMaxCommits": 2,
        "partialProgressMaxFailedCommits": 0,
        "maxConcurrentFileGroupRewrites": 1,
    }
    if refused(target, table, REWRITE, settings, "rewriteJobOrder", "partialProgressMaxFailedCommits"):
        return
    known = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    done = target.maintain(table, REWRITE, settings)
    made = [snapshot for snapshot in done.table.metadata.snapshots if snapshot.snapshot_id not in known]
    assert len(made) == 2
    after_first = [
        entry.data_file
        for manifest in made[0].manifests(done.table.io)
        for entry in manifest.fetch_manifest_entry(done.table.io)
    ]
    added = [file.partition[0] for file in after_first if file.file_path not in done.before.data]
    assert added == [first]


def test_files_under_few_deletes_stay(target: Target, lake: Lake) -> None:
    table = lake.table(2)
    often, once = data_files(table)
    for position in (1, 2):
        position_delete(table, {often.file_path: [position]}, file_scoped=True)
    position_delete(table, {once.file_path: [3]}, file_scoped=True)
    largest = max(often.file_size_in_bytes, once.file_size_in_bytes)
    settings = {"deleteFileThreshold": 2, "targetFileSizeBytes": largest}
    if refused(target, table, REWRITE, settings, "deleteFileThreshold"):
        return
    done = target.maintain(table, REWRITE, settings)
    assert once.file_path in done.after.data
    assert often.file_path not in done.after.data


def test_groups_of_delete_files_are_as_large_as_the_policy_says(target: Target, lake: Lake) -> None:
    table = lake.table(1, properties={"write.delete.granularity": "partition"})
    (file,) = data_files(table)
    for position in range(6):
        position_delete(table, {file.file_path: [position]}, file_scoped=True)
    size = max(delete.file_size_in_bytes for delete in delete_files(table))
    settings = {"maxFileGroupSizeBytes": 3 * size + size // 2, "minInputFiles": 3}
    if refused(target, table, DELETES, settings):
        return
    done = target.maintain(table, DELETES, settings)
    assert sorted(delete.record_count for delete in delete_files(done.table)) == [3, 3]


@pytest.mark.parametrize("operation", [EXPIRE, ORPHANS])
def test_files_are_set_aside(target: Target, lake: Lake, operation: Operation) -> None:
    table = lake.aged(lake.table(3), (9, 8, 0))
    table.overwrite(rows(900, 5))
    stray = lake.put(table, "data/lost.parquet")
    target.look_later(days=30)
    settings = {"quarantine": "P7D", **({"retainLast": 1} if operation is EXPIRE else {})}
    if refused(target, table, operation, settings, "quarantine"):
        return
    before = stored(table)
    (record,) = target.run(table, {operation: settings}).records
    assert record.result is not None, record.error
    assert record.result.files_deleted == 0
    after = stored(table)
    gone = before.keys() - after.keys()
    assert record.result.files_quarantined == len(gone)
    if operation is ORPHANS:
        assert gone == {stray}
    assert sum(before[path] for path in gone) == sum(
        size for path, size in after.items() if "/_floe_quarantine/" in path
    )


@pytest.mark.parametrize("mode", ["ERROR", "IGNORE", "DELETE"])
def test_files_that_differ_from_referenced_ones_in_their_bucket_only(target: Target, lake: Lake, mode: str) -> None:
    table = lake.table(1)
    store = lake.services["s3"]
    fields = {"access_key": store["key"], "secret_key": store["secret"], "region": store["region"]}
    buckets = S3FileSystem(endpoint_override=store["endpoint"], allow_bucket_creation=True, **fields)
    buckets.create_dir("elsewhere")
    stray = lake.put(table, "data/twice.parquet")
    original = data_files(table)[0].file_path.removeprefix("s3://")
    twin = stray.removeprefix("s3://").replace("warehouse/", "elsewhere/", 1)
    buckets.copy_file(original, twin)
    table.add_files([f"s3://{twin}"], check_duplicate_files=False)
    lost = lake.put(table, "data/lost.parquet")
    target.look_later(days=9)
    settings = {"prefixMismatchMode": mode}
    if mode == "ERROR":
        target.refuses("equalAuthorities", table, ORPHANS, settings)
    elif not refused(target, table, ORPHANS, settings, "prefixMismatchMode"):
        before = stored(table)
        assert not target.run(table, {ORPHANS: settings}).verdict.failed
        assert before.keys() - stored(table).keys() == ({lost, stray} if mode == "DELETE" else {lost})


@pytest.mark.every_version
def test_the_server_can_do_what_the_page_on_engines_says(target: Target) -> None:
    columns = runpy.run_path(str(REPOSITORY / "docs/engines_matrix.py"))["columns"]()
    said = columns[COLUMNS[target.name]].operations
    assert target.engine.probe().operations == said
