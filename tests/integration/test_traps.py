"""The traps that a maintenance engine for Iceberg tables falls into, one test each; its first line states the trap."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import version_3
from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import oracle_digest
from harness.tables import (
    SCHEMA,
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    delete_files,
    entries,
    lake,
    local_path,
    missing_files,
    request_for,
    rows,
    rows_digest,
    small_files,
    stored_files,
    table_ref,
)
from harness.version_3 import add_vectors, append, upgrade
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import IntegerType, LongType, NestedField, StringType, StructType

from airflow_provider_floe.engines.base import OperationResult, TableLocation
from airflow_provider_floe.engines.local import deletion
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.engines.local.reader import GroupReader
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    RetentionRefused,
    UnsafeLocation,
    VerificationFailed,
)
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import SETTINGS_MODELS
from airflow_provider_floe.tables import Operation

ENGINE = LocalEngine(256 * 1024**2)
EXPIRY = {"retain_last": 1, "max_snapshot_age": timedelta(hours=1)}


def run(table: Table, operation: Operation, context: FakeContext | None = None, **settings: Any) -> OperationResult:
    request = request_for(table, operation, SETTINGS_MODELS[operation](**settings))
    try:
        return ENGINE.execute(request, context or context_for(table))
    finally:
        table.refresh()


def rewrite(table: Table, context: FakeContext | None = None, **settings: Any) -> OperationResult:
    return run(table, Operation.REWRITE_DATA_FILES, context, **settings)


def meanwhile(table: Table, *actions: Callable[[Table], object]) -> FakeContext:
    """A context in which others commit right before our first commit."""

    def act(attempt: int) -> None:
        for action in actions if attempt == 1 else ():
            action(table.catalog.load_table(table.name()))

    return context_for(table, on_committing=act)


def ids(table: Table) -> list[int]:
    return sorted(row[0] for row in rows_digest(table, ["id"]))


def holding(table: Table, first: int) -> str:
    """The data file whose smallest id this is."""
    wanted = first.to_bytes(8, "little")
    return next(file.file_path for file in data_files(table) if file.lower_bounds[1] == wanted)


def delete_first_row(other: Table) -> None:
    position_delete(other, {holding(other, 0): [0]})


def delete_first_id(other: Table) -> None:
    equality_delete(other, rows(0, 1), ["id"])


def append_row(other: Table) -> None:
    other.append(rows(1000, 1))


def test_t1_a_delete_hidden_behind_a_later_commit_is_lost(tmp_path: Path) -> None:
    """A validation that counts from the head, not from the snapshot read, misses all but the last commit."""
    table = small_files(lake(tmp_path), 3)
    with pytest.raises(CommitConflict, match="new deletes"):
        rewrite(table, meanwhile(table, delete_first_row, append_row, append_row))
    assert ids(table) == [*range(1, 30), 1000, 1000]


def test_t2_a_concurrent_append_refuses_the_rewrite(tmp_path: Path) -> None:
    """Serializable isolation, the default, holds any append against a rewrite, though it touches none of its files."""
    table = small_files(lake(tmp_path), 3, properties={"write.delete.isolation-level": "serializable"})
    assert rewrite(table, meanwhile(table, append_row)).files_rewritten == 3
    assert ids(table) == [*range(30), 1000]


@pytest.mark.parametrize(
    ("actions", "conflict", "gone", "added"),
    [
        ((append_row,), False, 0, 1),
        ((delete_first_row,), True, 1, 0),
        ((delete_first_row, append_row), True, 1, 1),
        ((delete_first_id,), False, 1, 0),
        ((delete_first_id, append_row), False, 1, 1),
        ((rewrite,), True, 0, 0),
    ],
    ids=["append", "position", "position+append", "equality", "equality+append", "rewrite"],
)
def test_t3_the_wrong_conflict_rule_loses_or_refuses(
    tmp_path: Path, actions: Any, conflict: bool, gone: int, added: int
) -> None:
    """Only files no longer live and new position deletes conflict: files carry the sequence number that was read."""
    table = small_files(lake(tmp_path), 3)
    context = meanwhile(table, *actions)
    if conflict:
        with pytest.raises(CommitConflict):
            rewrite(table, context)
    else:
        assert rewrite(table, context).changed
        assert min(entry.sequence_number or 0 for entry in entries(table)) == 3
    assert oracle_digest(table.metadata_location).rows == 30 - gone + added
    rewrite(table)
    assert ids(table) == [*range(gone, 30), *[1000] * added]


def test_t4_a_delete_file_that_reaches_further_than_the_group_is_removed(tmp_path: Path) -> None:
    """A delete file goes only with the last data file that it may apply to, in whatever partition that is."""
    table = create_table(lake(tmp_path))
    append_files(table, 2)
    with table.update_spec() as update:
        update.add_identity("part")
    append_files(table, 2, start=100, parts=("a", "b"))
    position_delete(table, {holding(table, 0): [0], holding(table, 10): [0]})
    equality_delete(table, rows(105, 10, "z"), ["id"], spec_id=0)
    told = oracle_digest(table.metadata_location)
    assert rewrite(table, filter="part = 'b' and id >= 100").changed
    assert len(delete_files(table)) == 2
    assert oracle_digest(table.metadata_location) == told
    rewrite(table)
    assert delete_files(table) == []
    assert oracle_digest(table.metadata_location) == told


def test_t5_deletes_applied_by_the_wrong_sequence_or_with_null_unequal_to_null(tmp_path: Path) -> None:
    """Equality deletes spare rows of their own age, NULL equals NULL, and a column dropped since still counts."""
    table = small_files(lake(tmp_path), 2)
    no_text = rows(50, 1).set_column(2, rows(0, 1).schema.field("text"), pa.nulls(1, pa.large_string()))
    table.append(no_text)
    equality_delete(table, pa.concat_tables([rows(5, 1), no_text]), ["text"])
    with table.update_schema() as update:
        update.delete_column("text")
    table.append(rows(5, 1).drop(["text"]))
    position_delete(table, {holding(table, 0): [1]})
    rewrite(table)
    assert delete_files(table) == []
    assert ids(table) == [0, *range(2, 20)], "of the rows with id 5 the one from after the delete is there"
    assert len(ids(table)) == 19


def test_t6_row_ids_and_vectors_of_version_3_are_lost(tmp_path: Path) -> None:
    """A rewrite of version 3 writes out row ids and last changes, and applies each file's one deletion vector."""
    table = upgrade(create_table(lake(tmp_path)))
    for number in range(3):
        append(table, rows(10 * number, 10))
    add_vectors(table, version_3.positions_of(table, {3, 4, 25}))
    before = version_3.rows(table)
    assert len(before) == 27
    assert rewrite(table).changed
    assert version_3.rows(table) == before
    (file,) = version_3.live(table)
    found = {field.name: field.metadata[b"PARQUET:field_id"] for field in pq.read_schema(local_path(file.path))}
    assert (found["_row_id"], found["_last_updated_sequence_number"]) == (b"2147483540", b"2147483539")


def test_t7_a_tag_created_while_its_snapshot_expires_is_dropped(tmp_path: Path) -> None:
    """Catalogs drop in silence a ref that came to a snapshot while it was being expired."""
    table = small_files(lake(tmp_path), 3)
    table.overwrite(rows(100, 10))
    pinned = table.metadata.snapshots[1].snapshot_id
    context = meanwhile(table, lambda other: other.manage_snapshots().create_tag(pinned, "audit").commit())
    assert run(table, Operation.EXPIRE_SNAPSHOTS, context, **EXPIRY).changed
    assert table.refs()["audit"].snapshot_id == pinned
    assert table.scan(snapshot_id=pinned).to_arrow().num_rows == 20
    assert missing_files(table) == []


def test_t8_expiry_deletes_files_that_a_kept_snapshot_shares(tmp_path: Path) -> None:
    """Only what no kept snapshot reaches goes: not what a tag shares, and nothing where gc.enabled is false."""
    table = small_files(lake(tmp_path), 4)
    tagged = table.metadata.snapshots[2].snapshot_id
    table.manage_snapshots().create_tag(tagged, "audit").commit()
    table.overwrite(rows(100, 10))
    with table.transaction() as transaction:
        transaction.set_properties({"gc.enabled": "false"})
    stored = stored_files(table)
    with pytest.raises(RetentionRefused, match=r"gc\.enabled"):
        run(table, Operation.EXPIRE_SNAPSHOTS, **EXPIRY)
    assert stored_files(table) == stored
    with table.transaction() as transaction:
        transaction.set_properties({"gc.enabled": "true"})
    dropped = local_path(data_files(table)[0].file_path)
    result = run(table, Operation.EXPIRE_SNAPSHOTS, **EXPIRY)
    assert result.files_deleted > 0
    assert dropped.exists()
    assert table.scan(snapshot_id=tagged).to_arrow().num_rows == 30
    assert len(list(local_path(table.location()).rglob("data/*"))) == 4, "three of the tag, one of main"
    assert missing_files(table) == []


def test_t9_metadata_files_are_taken_for_orphans(tmp_path: Path) -> None:
    """Only logged metadata files are reachable, yet none is ever an orphan, nor is the version hint."""
    table = create_table(lake(tmp_path), properties={"write.metadata.previous-versions-max": "1"})
    append_files(table, 3)
    folder = local_path(table.location()) / "metadata"
    (folder / "version-hint.text").write_text("3")
    kept = stored_files(table)
    assert len(list(folder.glob("*.metadata.json"))) > 2
    (folder / "stray-m0.avro").write_bytes(b"of a writer that died")
    assert run(table, Operation.REMOVE_ORPHAN_FILES).files_deleted == 1
    assert stored_files(table) == kept


def test_t10_orphans_are_judged_by_stale_metadata_or_another_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed after the listing, young, spelled otherwise or another table's is no orphan."""
    table = small_files(lake(tmp_path), 2)
    spelled = local_path(table.metadata_location)
    location = str(local_path(table.location()))
    spelled.write_text(spelled.read_text().replace(f'"location":"file://{location}"', f'"location":"{location}"'))
    table.refresh()
    now = datetime.now(UTC)
    lost, late, young = (Path(location) / "data" / name for name in ("a-lost.parquet", "late.parquet", "young.parquet"))
    for path in (lost, late, young):
        pq.write_table(rows(700, 7), path)
    for path in stored_files(table) - {young}:
        os.utime(path, (now.timestamp(), (now - timedelta(days=10)).timestamp()))
    context = context_for(table, time=now)

    def commit() -> None:
        if context.journal.deleted and len(table.catalog.load_table(table.name()).metadata.snapshots) == 2:
            table.catalog.load_table(table.name()).add_files([f"file://{late}"])

    monkeypatch.setattr(deletion, "_BATCH", 1)
    context.on_checkpoint = commit
    run(table, Operation.REMOVE_ORPHAN_FILES, context)
    assert (lost.exists(), late.exists(), young.exists()) == (False, True, True)
    assert ids(table) == [*range(20), *range(700, 707)]
    assert missing_files(table) == []
    neighbour = TableLocation(table_ref(table), "another", (f"file:{location}/data",))
    with pytest.raises(UnsafeLocation):
        run(table, Operation.REMOVE_ORPHAN_FILES, context_for(table, others=(neighbour,)))


@pytest.mark.parametrize("applied", [True, False])
def test_t11_a_commit_of_unknown_outcome_is_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    """After a commit without an answer files may be in use: our snapshot is looked for before anything goes."""
    table = small_files(lake(tmp_path), 3)
    real = type(table.catalog).commit_table

    def commit(*arguments: Any) -> None:
        if applied:
            real(*arguments)
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(table.catalog), "commit_table", commit)
    context = context_for(table)
    if applied:
        assert rewrite(table, context).changed
    else:
        with pytest.raises(CommitOutcomeUnknown, match="no answer"):
            rewrite(table, context)
    assert context.journal.outputs
    assert all(local_path(path).exists() for path in context.journal.outputs)
    assert missing_files(table) == []
    assert ids(table) == [*range(30)]


def test_t12_sizes_are_guessed_and_the_same_files_rewritten_for_ever(tmp_path: Path) -> None:
    """Output is measured on disk, and what came out near the target is not picked again."""
    target = 150_000
    table = create_table(lake(tmp_path), properties={"write.target-file-size-bytes": str(target)})
    maker = random.Random(1)
    for number in range(6):
        made = rows(number * 2000, 2000)
        noise = pa.array([maker.randbytes(20).hex() for _ in range(2000)], made.schema.field("text").type)
        table.append(made.set_column(2, made.schema.field("text"), noise))
    assert rewrite(table).changed
    sizes = [file.file_size_in_bytes for file in data_files(table)]
    assert sizes == [local_path(file.file_path).stat().st_size for file in data_files(table)]
    assert len(sizes) > 1
    assert all(0.75 * target <= size <= 1.8 * target for size in sizes), sizes
    assert not rewrite(table).changed


def test_t13_partitions_are_computed_anew(tmp_path: Path) -> None:
    """Rewritten files keep the partition tuple and spec of their rows, whatever transform the table has now."""
    table = small_files(lake(tmp_path), 2, parts=("a", "b"))
    with table.update_spec() as update:
        update.remove_field("part")
        update.add_field("id", BucketTransform(4), "bucketed")
    before = rows_digest(table)
    assert rewrite(table).files_rewritten == 4
    assert sorted((file.spec_id, *file.partition) for file in data_files(table)) == [(0, "a"), (0, "b")]
    assert rows_digest(table) == before


def test_t14_metrics_and_order_are_claimed_that_the_table_or_the_rows_do_not_have(tmp_path: Path) -> None:
    """Metrics follow the table's modes, an order id only rows in that order, split offsets come from the footer."""
    order = SortOrder(SortField(1, transform=IdentityTransform()))
    modes = {"write.metadata.metrics.default": "truncate(4)", "write.metadata.metrics.column.part": "none"}
    table = lake(tmp_path).create_table("db.events", schema=SCHEMA, sort_order=order, properties=modes)
    append_files(table, 2)
    rewrite(table)
    (file,) = data_files(table)
    assert file.sort_order_id is None
    assert (file.lower_bounds[3], file.upper_bounds[3]) == (b"text", b"texu")
    assert set(file.value_counts) == {1, 3}
    group = pq.read_metadata(local_path(file.file_path)).row_group(0).column(0)
    assert list(file.split_offsets) == [group.dictionary_page_offset or group.data_page_offset]
    append_files(table, 1, start=100)
    rewrite(table, strategy="SORT")
    assert [file.sort_order_id for file in data_files(table)] == [table.sort_order().order_id]


def test_t15_rows_that_a_reader_loses_are_committed_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows written are held against the manifests' counts less the deletes, counted by another way."""
    table = small_files(lake(tmp_path), 3)
    delete_first_row(table)
    real = GroupReader.batches
    monkeypatch.setattr(GroupReader, "batches", lambda self, file: (batch.slice(1) for batch in real(self, file)))
    with pytest.raises(VerificationFailed, match="rows were written, but 30 rows less 1"):
        rewrite(table)
    table.refresh()
    assert ids(table) == [*range(1, 30)]


def test_t16_columns_are_matched_by_name_where_ids_or_the_mapping_count(tmp_path: Path) -> None:
    """Names that Parquet cannot bear, nested ids and files without ids read the same after the rewrite."""
    inner = StructType(
        NestedField(4, "1st", IntegerType(), required=False), NestedField(5, "y.z", StringType(), required=False)
    )
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(2, "dotted.name", StringType(), required=False),
        NestedField(3, "pair", inner, required=False),
    )
    table = create_table(lake(tmp_path), schema=schema)
    made = [{"id": n, "dotted.name": f"d{n}", "pair": {"1st": n, "y.z": "q"} if n % 3 else None} for n in range(20)]
    plain = schema_to_pyarrow(schema, include_field_ids=False)
    path = tmp_path / "migrated.parquet"
    pq.write_table(pa.Table.from_pylist(made[:10], schema=plain), path)
    table.add_files([f"file://{path}"])
    table.append(pa.Table.from_pylist(made[10:], schema=plain))
    before = rows_digest(table)
    assert rewrite(table).files_rewritten == 2
    assert rows_digest(table) == before
    with table.update_schema() as update:
        update.rename_column("dotted.name", "other")
    assert sorted(table.scan().to_arrow()["other"].to_pylist()) == sorted(row["dotted.name"] for row in made)


def test_t17_manifests_come_from_a_cache_by_path(tmp_path: Path) -> None:
    """pyiceberg keeps manifests by path for the whole process: what a path holds now is read anew here."""
    table = small_files(lake(tmp_path), 3)
    first, current = table.metadata.snapshots[0], table.current_snapshot()
    assert current is not None
    assert len(current.manifests(table.io)) == 3
    local_path(current.manifest_list).write_bytes(local_path(first.manifest_list).read_bytes())
    assert [one.manifest_path for one in snapshot_manifests(table)] == [
        one.manifest_path for one in first.manifests(table.io)
    ]
