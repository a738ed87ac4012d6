"""Tables of format version 3: rows keep their lineage, deletion vectors are applied, row ids are given out as told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from harness import version_3
from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import oracle_digest
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
    request_for,
    rows,
    small_files,
    stored_files,
)
from harness.version_3 import add_vectors, append, upgrade
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import write_manifest_list
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    IntegerType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
)
from rewriting import MEMORY, rewrite, rewrite_all_manifests, work

from airflow_provider_floe.engines.local import expire, lineage, reader
from airflow_provider_floe.errors import CommitConflict, UnsupportedTableFeature, VerificationFailed
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import ExpireSnapshots
from airflow_provider_floe.tables import Operation

Rows = list[version_3.Row]


def v3_table(tmp_path: Path, files: int = 3, *, parts: tuple[str, ...] = (), **properties: str) -> Table:
    """Files of ten rows with ids that go up; row ids are the same."""
    table = upgrade(create_table(lake(tmp_path), partitioned=bool(parts), properties=properties))
    for number in range(files):
        first = 10 * number * len(parts or "a")
        append(table, pa.concat_tables(rows(first + 10 * i, 10, part) for i, part in enumerate(parts or "a")))
    return table


def data_paths(table: Table) -> list[str]:
    """Data files, oldest first."""
    found = [file for file in version_3.live(table) if file.content == 0]
    return [file.path for file in sorted(found, key=lambda file: file.first_row_id or 0)]


def interrupted(table: Table, action: Callable[[Table], object]) -> FakeContext:
    """A context in which another writer acts right before our first commit."""

    def act(attempt: int) -> None:
        if attempt == 1:
            action(table.catalog.load_table(table.name()))

    return context_for(table, on_committing=act)


def ids(found: Rows) -> list[int]:
    return sorted(row.values[0] for row in found)


# --- row lineage ------------------------------------------------------------------------------------------------------


def test_rows_keep_their_lineage(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    before, told = version_3.rows(table), oracle_digest(table.metadata_location)
    assert [(row.values[0], row.row_id, row.last_updated) for row in before] == [(n, n, 1 + n // 10) for n in range(30)]
    assert rewrite(table).files_rewritten == 3
    assert version_3.rows(table) == before
    assert oracle_digest(table.metadata_location) == told
    assert missing_files(table) == []
    assert not work(table).found
    (file,) = data_paths(table)
    ids_in_file = pq.ParquetFile(local_path(file)).schema_arrow
    found = {field.name: field.metadata[b"PARQUET:field_id"] for field in ids_in_file}
    assert (found["_row_id"], found["_last_updated_sequence_number"]) == (b"2147483540", b"2147483539")


def test_row_ids_are_taken_once_and_those_of_new_rows_are_new(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    next_id = table.metadata.next_row_id
    assert next_id == 30
    rewrite(table)
    snapshot = table.metadata.current_snapshot()
    assert snapshot is not None
    assert snapshot.first_row_id == 30
    assert snapshot.added_rows is not None
    assert snapshot.added_rows >= 30, "the rewritten file has ids of its own to give, though no row needs one"
    assert table.metadata.next_row_id == 30 + snapshot.added_rows
    rewrite_all_manifests(table)
    before = version_3.rows(table)
    append(table, rows(500, 10))
    fresh = [row.row_id for row in version_3.rows(table) if row not in before]
    assert len(fresh) == 10
    assert min(one for one in fresh if one is not None) >= next_id + 30
    assert rewrite(table, target_file_size_bytes=10_000_000).changed
    assert len({row.row_id for row in version_3.rows(table)}) == 40


def test_lineage_that_is_told_in_a_file_is_mixed_with_what_is_inherited(tmp_path: Path) -> None:
    """What Spark's updates leave: a row's id is told, its last change is inherited, and new rows have neither."""
    table = v3_table(tmp_path, 2)
    schema = [*rows(0, 1).schema, *version_3.LINEAGE_SCHEMA]
    content = pa.table(
        [[100, 101, 102], ["a"] * 3, ["x", "y", "z"], [7, None, 13], [None, None, 2]], names=[f.name for f in schema]
    )
    file = append(table, rows(100, 3))[0]
    path = local_path(file.file_path)
    ids_of_file = pq.read_schema(path)
    pq.write_table(content.cast(pa.schema([*ids_of_file, *version_3.LINEAGE_SCHEMA])), path)
    before = version_3.rows(table)
    told = {row.values[0]: (row.row_id, row.last_updated) for row in before if row.values[0] >= 100}
    assert told == {100: (7, 3), 101: (21, 3), 102: (13, 2)}
    rewrite(table)
    assert version_3.rows(table) == before


def test_row_groups_are_copied_only_where_all_lineage_is_told_in_them(tmp_path: Path) -> None:
    table = v3_table(tmp_path, 0)
    for number in range(4):
        append(table, rows(5_000 * number, 5_000))
    size = version_3.entries(table)[0].data_file.file_size_in_bytes
    before = version_3.rows(table)
    for group in range(2):  # in two files, which say what row ids they hold
        low, high = 10_000 * group, 10_000 * (group + 1)
        assert rewrite(table, filter=f"id >= {low} AND id < {high}").details["file_groups_copied"] == 0
    assert len(data_paths(table)) == 2
    result = rewrite(table, target_file_size_bytes=5 * size)
    assert (result.files_rewritten, result.details["file_groups_copied"]) == (2, 1)
    assert version_3.rows(table) == before
    assert len(data_paths(table)) == 1


def test_a_table_that_was_upgraded_gets_ids_with_its_first_commit(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    rewrite(table, filter="id < 20")
    append_files(table, 1, start=30)
    victim = min(data_files(table), key=lambda file: file.lower_bounds[1]).file_path
    position_delete(table, {victim: [0]})
    upgrade(table)
    assert {file.first_row_id for file in version_3.live(table)} == {None}
    told = oracle_digest(table.metadata_location)
    assert rewrite(table, filter="id < 30").files_rewritten == 2
    assert None not in {file.first_row_id for file in version_3.live(table) if file.content == 0}
    assert oracle_digest(table.metadata_location) == told
    rewrite(table)
    after = version_3.rows(table)
    assert len(after) == 39
    assert len({row.row_id for row in after}) == 39
    assert None not in {row.row_id for row in after}
    changed = {row.values[0] // 10: row.last_updated for row in after}
    assert changed == {0: 4, 1: 4, 2: 3, 3: 5}, "what a compaction before the upgrade wrote counts as changed by it"
    assert oracle_digest(table.metadata_location) == told
    assert not work(table).found


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "SORT", "sort_order": ["id DESC"]},
        {"strategy": "ZORDER", "z_order_columns": ["id", "text"]},
        {"partial_progress_enabled": True, "partial_progress_max_commits": 3},
        {"use_starting_sequence_number": False},
        {"target_file_size_bytes": 3000},
    ],
    ids=["sort", "z-order", "partial progress", "new sequence number", "many files"],
)
def test_however_rows_are_laid_down(tmp_path: Path, settings: dict[str, Any]) -> None:
    table = v3_table(tmp_path, 3, parts=("a", "b"))
    add_vectors(table, {path: [0, 9] for path in data_paths(table)[:3]})
    before, told = version_3.rows(table), oracle_digest(table.metadata_location)
    assert rewrite(table, **settings).changed
    assert version_3.rows(table) == before
    assert oracle_digest(table.metadata_location) == told
    assert not work(table, **settings).found


def test_rows_move_to_another_spec(tmp_path: Path) -> None:
    table = v3_table(tmp_path, 2)
    document = local_path(table.metadata_location)
    metadata = json.loads(document.read_text())
    field = {"source-id": 2, "field-id": 1000, "transform": "identity", "name": "part"}
    metadata["partition-specs"].append({"spec-id": 1, "fields": [field]})
    document.write_text(json.dumps({**metadata, "default-spec-id": 1, "last-partition-id": 1000}))
    table.refresh()
    append(table, pa.concat_tables([rows(20, 5, "a"), rows(25, 5, "b")]))
    before = version_3.rows(table)
    assert rewrite(table, output_spec_id=1).changed
    assert version_3.rows(table) == before
    assert {entry.data_file.spec_id for entry in version_3.entries(table)} == {1}


def test_a_changed_schema(tmp_path: Path) -> None:
    fields = (
        NestedField(1, "id", IntegerType(), required=False),
        NestedField(2, "a.b", StringType(), required=False),
        NestedField(3, "pair", StructType(NestedField(4, "left", LongType(), required=False)), required=False),
    )
    properties = {"format-version": "2"}
    table = upgrade(lake(tmp_path).create_table("db.events", schema=Schema(*fields), properties=properties))
    append(table, pa.table({"id": pa.array([1, 2], pa.int32()), "a.b": ["x", None], "pair": [{"left": 1}, None]}))
    document = local_path(table.metadata_location)
    metadata = json.loads(document.read_text())
    schema = json.loads(json.dumps(metadata["schemas"][0]))
    schema["schema-id"] = 1
    schema["fields"][0] |= {"type": "long", "name": "number"}
    schema["fields"].append({"id": 5, "name": "added", "type": "string", "required": False})
    metadata["schemas"].append(schema)
    document.write_text(json.dumps({**metadata, "current-schema-id": 1, "last-column-id": 5}))
    table.refresh()
    append(table, pa.table({"number": [2**40], "a.b": ["y"], "pair": [{"left": 3}], "added": ["new"]}))
    told = oracle_digest(table.metadata_location)
    lineage_before = [(row.row_id, row.last_updated) for row in version_3.rows(table)]
    assert rewrite(table).changed
    assert oracle_digest(table.metadata_location) == told
    assert [(row.row_id, row.last_updated) for row in version_3.rows(table)] == lineage_before


def test_lineage_that_is_lost_on_the_way_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = v3_table(tmp_path)
    before, left = version_3.rows(table), stored_files(table)

    class Forgetful(lineage.LineageDigest):
        def add(self, row_ids: Any, last_updated: Any) -> None:
            super().add(pc.add(row_ids, 1), last_updated)

    monkeypatch.setattr(reader, "LineageDigest", Forgetful)
    with pytest.raises(VerificationFailed, match="row lineage of 30 rows"):
        rewrite(table)
    assert version_3.rows(table) == before
    assert stored_files(table) == left


# --- default values and types -----------------------------------------------------------------------------------------

DEFAULTS: list[tuple[Any, Any, Any]] = [
    ("int", 7, 7),
    ("string", "none", "none"),
    ("date", "2020-02-29", date(2020, 2, 29)),
    ("decimal(9, 2)", "12.30", Decimal("12.30")),
    ("timestamp", "2020-01-01T10:00:00.000001", datetime(2020, 1, 1, 10, 0, 0, 1)),
    ("boolean", True, True),
    ("double", 0.5, 0.5),
]


def with_defaults(tmp_path: Path) -> Table:
    """A table to which columns with initial defaults were added after its first file."""
    table = v3_table(tmp_path, 1)
    document = local_path(table.metadata_location)
    metadata = json.loads(document.read_text())
    schema = json.loads(json.dumps(metadata["schemas"][0]))
    schema["schema-id"] = 1
    for number, (kind, default, _) in enumerate(DEFAULTS):
        field = {"id": 10 + number, "name": f"added_{number}", "type": kind, "required": False}
        schema["fields"].append({**field, "initial-default": default, "write-default": default})
    metadata["schemas"].append(schema)
    document.write_text(json.dumps({**metadata, "current-schema-id": 1, "last-column-id": 20}))
    return table.refresh()


def test_initial_defaults_are_written_out(tmp_path: Path) -> None:
    table = with_defaults(tmp_path)
    schema = json.loads(local_path(table.metadata_location).read_text())["schemas"]
    told = rows(10, 2)
    for number, (_, _, value) in enumerate(DEFAULTS):
        kind = schema_to_pyarrow(table.schema().find_type(10 + number))
        told = told.append_column(f"added_{number}", pa.array([None, value], kind))
    append(table, told)
    assert rewrite(table).changed
    (file,) = data_paths(table)
    content = pq.read_table(local_path(file)).sort_by("id")
    for number, (_, _, value) in enumerate(DEFAULTS):
        assert content[f"added_{number}"].to_pylist() == [value] * 10 + [None, value]
    assert json.loads(local_path(table.metadata_location).read_text())["schemas"] == schema


def test_nanoseconds_are_kept(tmp_path: Path) -> None:
    schema = Schema(NestedField(1, "at", TimestampNanoType(), required=False))
    table = upgrade(lake(tmp_path).create_table("db.events", schema=Schema(NestedField(1, "at", LongType()))))
    document = local_path(table.metadata_location)
    metadata = json.loads(document.read_text())
    metadata["schemas"][0]["fields"][0] = {"id": 1, "name": "at", "type": "timestamp_ns", "required": False}
    document.write_text(json.dumps(metadata))
    table.refresh()
    assert table.schema().fields == schema.fields
    values = [1_600_000_000_000_000_001, 1_600_000_000_000_000_002]
    for value in values:
        append(table, pa.table({"at": pa.array([value], pa.timestamp("ns"))}))
    assert rewrite(table).changed
    (file,) = data_paths(table)
    assert sorted(pq.read_table(local_path(file))["at"].cast(pa.int64()).to_pylist()) == values


@pytest.mark.parametrize("kind", ["unknown", "geometry", "geography"])
def test_types_that_are_not_carried_over_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    table = v3_table(tmp_path)
    document = local_path(table.metadata_location)
    metadata = json.loads(document.read_text())
    metadata["schemas"][0]["fields"].append({"id": 9, "name": "where", "type": kind, "required": False})
    document.write_text(json.dumps(metadata))
    with pytest.raises(UnsupportedTableFeature, match=rf"column where of type {kind}.*engine spark"):
        rewrite(table.refresh())


def test_a_column_under_the_name_of_lineage_is_refused(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    document = local_path(table.metadata_location)
    metadata = json.loads(document.read_text())
    metadata["schemas"][0]["fields"].append({"id": 9, "name": "_row_id", "type": "long", "required": False})
    document.write_text(json.dumps(metadata))
    with pytest.raises(UnsupportedTableFeature, match="column named _row_id"):
        rewrite(table.refresh())


# --- concurrent commits: traps T1 to T4 -------------------------------------------------------------------------------


@pytest.mark.parametrize("then_append", [False, True], ids=["vector", "vector, then append"])
def test_a_vector_meanwhile_is_a_conflict(tmp_path: Path, then_append: bool) -> None:
    table = v3_table(tmp_path)
    victim = data_paths(table)[0]
    left = stored_files(table)

    def delete(other: Table) -> None:
        add_vectors(other, {victim: [0, 1, 2]})
        if then_append:
            append(other, rows(1000, 1))

    with pytest.raises(CommitConflict, match="new deletes"):
        rewrite(table, interrupted(table, delete))
    expected = [*range(3, 30), *([1000] if then_append else [])]
    assert ids(version_3.rows(table)) == expected
    assert [path for path in stored_files(table) - left if path.name.startswith("floe-")] == []
    before = version_3.rows(table)
    assert rewrite(table).changed
    assert version_3.rows(table) == before


def test_a_vector_that_is_replaced_meanwhile_is_a_conflict(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    victim = data_paths(table)[0]
    add_vectors(table, {victim: [0]})
    with pytest.raises(CommitConflict, match="new deletes"):
        rewrite(table, interrupted(table, lambda other: add_vectors(other, {victim: [1]})))
    assert ids(version_3.rows(table)) == [*range(2, 30)]


def test_a_vector_on_another_file_is_no_conflict(tmp_path: Path) -> None:
    table = v3_table(tmp_path, 4)
    victim = data_paths(table)[3]
    result = rewrite(table, interrupted(table, lambda other: add_vectors(other, {victim: [0]})), filter="id < 30")
    assert result.files_rewritten == 3
    assert ids(version_3.rows(table)) == [*range(30), *range(31, 40)]


def test_an_equality_delete_meanwhile_still_applies(tmp_path: Path) -> None:
    table = v3_table(tmp_path)

    def delete(other: Table) -> None:
        path = f"{other.location()}/data/equality.parquet"
        file = equality_delete_file(other, path)
        version_3.commit(other, added=[file])
        append(other, rows(1, 1))

    before = {row.values[0]: row for row in version_3.rows(table)}
    assert rewrite(table, interrupted(table, delete)).changed
    assert oracle_digest(table.metadata_location).rows == 28
    assert rewrite(table).changed
    after = version_3.rows(table)
    assert ids(after) == [1, *range(3, 30)]
    assert [row for row in after if row.values[0] > 2] == [before[number] for number in range(3, 30)]


def equality_delete_file(table: Table, path: str) -> Any:
    """Removes the rows with ids 0 to 2."""
    old = lake(local_path(table.location()).parents[2] / "aside")
    twin = small_files(old, 1)
    file = equality_delete(twin, rows(0, 3), ["id"])
    local_path(path).write_bytes(local_path(file.file_path).read_bytes())
    file[1] = path
    return file


def test_an_append_meanwhile_is_kept_and_takes_ids_of_its_own(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    before = version_3.rows(table)
    context = interrupted(table, lambda other: append(other, rows(1000, 5)))
    assert rewrite(table, context).changed
    after = version_3.rows(table)
    assert [row for row in after if row.values[0] < 1000] == before
    assert len({row.row_id for row in after}) == 35
    assert len(context.commits_begun) == 2


def test_a_commit_to_another_branch_meanwhile_takes_no_id_twice(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    before = version_3.rows(table)

    def on_branch(other: Table) -> None:
        head = other.metadata.current_snapshot_id
        append(other, rows(1000, 5))
        aside = other.metadata.current_snapshot_id
        document = local_path(other.metadata_location)
        metadata = json.loads(document.read_text())
        metadata["refs"]["audit"] = {"snapshot-id": aside, "type": "branch"}
        metadata["refs"]["main"]["snapshot-id"] = metadata["current-snapshot-id"] = head
        document.write_text(json.dumps(metadata))

    context = interrupted(table, on_branch)
    assert rewrite(table, context).changed
    assert len(context.commits_begun) == 2
    snapshot, aside = table.metadata.current_snapshot(), table.metadata.snapshot_by_name("audit")
    assert snapshot is not None
    assert aside is not None
    assert (aside.first_row_id, aside.added_rows) == (30, 5)
    assert snapshot.first_row_id == 35
    assert snapshot.sequence_number == 5
    assert version_3.rows(table) == before


def test_a_manifest_list_of_version_1_that_counts_nothing_still_leaves_room_for_all_row_ids(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, properties={"format-version": "1"})
    snapshot = table.current_snapshot()
    assert snapshot is not None
    manifests = snapshot_manifests(table)
    for manifest in manifests:
        for position in range(7, 13):
            manifest[position] = None
    with write_manifest_list(1, table.io.new_output(snapshot.manifest_list), 1, None, None, "null") as writer:
        writer.add_manifests(manifests)
    upgrade(table)
    append(table, rows(100, 5))
    assert {row.row_id for row in version_3.rows(table)} == set(range(35))
    before = version_3.rows(table)
    assert rewrite(table).changed
    assert version_3.rows(table) == before


def test_ids_that_rows_of_an_upgraded_table_get_meanwhile_are_kept(tmp_path: Path) -> None:
    table = upgrade(small_files(lake(tmp_path), 3))
    with pytest.raises(CommitConflict, match="have been given ids"):
        rewrite(table, interrupted(table, lambda other: append(other, rows(1000, 5))))
    before = version_3.rows(table)
    assert None not in {row.row_id for row in before}
    assert rewrite(table).changed
    assert version_3.rows(table) == before


def test_deletes_go_with_the_last_file_that_needs_them(tmp_path: Path) -> None:
    """Position deletes of the time before the upgrade reach a whole partition."""
    table = small_files(lake(tmp_path), 3)
    position_delete(table, {file.file_path: [0] for file in data_files(table)})
    upgrade(table)
    assert rewrite(table, filter="id < 10").files_rewritten == 1
    assert [file.content for file in version_3.live(table)].count(1) == 1
    told = oracle_digest(table.metadata_location)
    assert rewrite(table).changed
    assert [file.content for file in version_3.live(table)] == [0]
    assert oracle_digest(table.metadata_location) == told
    assert ids(version_3.rows(table)) == [n for n in range(30) if n % 10]


class Killed(BaseException):
    pass


def test_wherever_a_rewrite_is_killed_the_table_is_as_it_was(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    add_vectors(table, {data_paths(table)[0]: [1]})
    before, head = version_3.rows(table), table.metadata.current_snapshot_id

    def kill(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    for point in range(100):
        left = point
        try:
            rewrite(table, context_for(table, on_checkpoint=kill, on_committing=kill))
        except Killed:
            assert table.refresh().metadata.current_snapshot_id == head
        else:
            break
    assert point > 3, "it looks several times whether it may go on"
    assert version_3.rows(table) == before
    assert [file.content for file in version_3.live(table)] == [0]
    assert missing_files(table) == []


# --- catalogs ---------------------------------------------------------------------------------------------------------


def test_through_a_rest_catalog(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        server.catalog.create_namespace("db")
        upgrade(create_table(server.catalog))
        catalog = RestCatalog("lake", uri=server.uri)
        table = catalog.load_table("db.events")
        for number in range(3):
            append(table, rows(10 * number, 10))
        add_vectors(table, {data_paths(table)[0]: [0, 1]})
        before = version_3.rows(table)
        context = interrupted(table, lambda other: append(other, rows(1000, 5)))
        assert rewrite_all_manifests(table).changed
        assert rewrite(table, context).changed
        after = version_3.rows(table)
        assert [row for row in after if row.values[0] < 1000] == before
        assert len(after) == 33
        snapshot = table.metadata.current_snapshot()
        assert snapshot is not None
        assert snapshot.added_rows is not None
        assert table.metadata.next_row_id == (snapshot.first_row_id or 0) + snapshot.added_rows


def test_snapshots_expire(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    add_vectors(table, {data_paths(table)[0]: [0, 1]})
    rewrite(table)
    before = version_3.rows(table)
    settings = ExpireSnapshots(retain_last=1)
    result = expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, settings), context_for(table), MEMORY)
    table.refresh()
    assert result.snapshots_expired == 4
    assert version_3.rows(table) == before
    assert len(list(local_path(table.location()).rglob("data/*"))) == 1
    append(table, rows(50, 1))
    assert len({row.row_id for row in version_3.rows(table)}) == 29


def test_metadata_that_pyiceberg_would_drop_is_not_written_over(tmp_path: Path) -> None:
    table = v3_table(tmp_path)
    document = local_path(table.metadata_location)
    document.write_text(json.dumps({**json.loads(document.read_text()), "encryption-keys": [{"key-id": "k"}]}))
    left = stored_files(table)
    with pytest.raises(UnsupportedTableFeature, match=r"would lose encryption-keys .*REST catalog"):
        rewrite(table.refresh())
    assert {path for path in stored_files(table) - left if path.suffix != ".json"} == set()
