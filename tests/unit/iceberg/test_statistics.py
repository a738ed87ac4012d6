"""When statistics are worth computing: once, and again when enough rows have changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.statistics import (
    statistics_columns,
    statistics_detail,
    statistics_work,
    written_statistics,
)
from airflow_provider_floe.policies.model import ComputeTableStats

FIELDS = [
    {"id": 1, "name": "id", "type": "long", "required": False},
    {"id": 2, "name": "text", "type": "string", "required": False},
    {"id": 3, "name": "many", "type": {"type": "list", "element-id": 4, "element": "long", "element-required": False}},
]
FIELDS[2]["required"] = False
LATER = [*FIELDS, {"id": 5, "name": "new", "type": "int", "required": False}]


def snapshot(number: int, kind: str = "append", parent: int | None = None, **counts: int) -> dict[str, Any]:
    summary = {key.replace("_", "-"): str(value) for key, value in counts.items()}
    return {
        "snapshot-id": number,
        "parent-snapshot-id": parent if parent is not None else number - 1 or None,
        "sequence-number": number,
        "timestamp-ms": 1_700_000_000_000 + number,
        "manifest-list": f"/t/metadata/snap-{number}.avro",
        "schema-id": 0,
        "summary": {"operation": kind, **summary},
    }


def statistics(snapshot_id: int, *fields: int, path: str = "", of: int | None = None) -> dict[str, Any]:
    return {
        "snapshot-id": snapshot_id,
        "statistics-path": path or f"/t/metadata/{snapshot_id}.stats",
        "file-size-in-bytes": 100,
        "file-footer-size-in-bytes": 10,
        "blob-metadata": [
            {
                "type": "apache-datasketches-theta-v1",
                "snapshot-id": of or snapshot_id,
                "sequence-number": 1,
                "fields": [field],
            }
            for field in fields
        ],
    }


def table(
    snapshots: list[dict[str, Any]],
    entries: list[dict[str, Any]],
    *,
    current: int | None = None,
    schemas: list[list[dict[str, Any]]] | None = None,
) -> TableMetadata:
    given_schemas = schemas or [FIELDS]
    head = current if current is not None else len(snapshots) or None
    return TableMetadataV2.model_validate(
        {
            "format-version": 2,
            "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
            "location": "/t",
            "last-sequence-number": len(snapshots),
            "last-updated-ms": 1_800_000_000_000,
            "last-column-id": 5,
            "schemas": [
                {"type": "struct", "schema-id": number, "fields": fields} for number, fields in enumerate(given_schemas)
            ],
            "current-schema-id": len(given_schemas) - 1,
            "partition-specs": [{"spec-id": 0, "fields": []}],
            "default-spec-id": 0,
            "last-partition-id": 999,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "default-sort-order-id": 0,
            "snapshots": snapshots,
            "statistics": entries,
            "refs": {"main": {"snapshot-id": head, "type": "branch"}} if head else {},
            "current-snapshot-id": head,
        }
    )


FIRST = snapshot(1, added_records=100, total_records=100, total_data_files=2, total_files_size=4096)


@pytest.mark.parametrize(
    ("snapshots", "entries", "found", "words"),
    [
        ([], [], False, "no rows"),
        ([snapshot(1, total_records=0)], [], False, "no rows"),
        ([FIRST], [], True, "no statistics; 2 columns"),
        ([FIRST], [statistics(1, 1, 2)], False, "current snapshot has statistics of 2 columns"),
        ([FIRST], [statistics(1, 1)], True, "statistics of snapshot 1 lack text"),
        ([FIRST, snapshot(2, added_records=9)], [statistics(1, 1, 2)], False, "9 rows .* 100: 9 %, threshold 10 %"),
        ([FIRST, snapshot(2, added_records=10)], [statistics(1, 1, 2)], True, "10 rows .* 100: 10 %, threshold 10 %"),
        ([FIRST, snapshot(2, "delete", deleted_records=10)], [statistics(1, 1, 2)], True, "10 rows"),
        ([FIRST, snapshot(2, "overwrite", added_position_deletes=10)], [statistics(1, 1, 2)], True, "10 rows"),
        (
            [FIRST, snapshot(2, "replace", added_records=100, deleted_records=100)],
            [statistics(1, 1, 2)],
            False,
            "0 rows",
        ),
        ([snapshot(1, parent=7, total_records=100)], [statistics(7, 1, 2)], True, "not in its current history"),
        # What Trino takes over from an older file tells of the older snapshot
        ([FIRST], [statistics(1, 1, 2, of=9)], True, "no statistics"),
    ],
)
def test_there_is_work_where_statistics_are_missing_or_old(
    snapshots: list[dict[str, Any]], entries: list[dict[str, Any]], found: bool, words: str
) -> None:
    work = statistics_work(table(snapshots, entries), ComputeTableStats())
    assert work.found is found
    assert re.search(words, work.summary), work.summary


def test_what_is_read_is_the_table() -> None:
    work = statistics_work(table([FIRST], []), ComputeTableStats())
    assert (work.files_in, work.bytes_in, work.files_out) == (2, 4096, 1)


def test_at_a_share_of_zero_a_snapshot_without_statistics_of_its_own_is_work() -> None:
    rewritten = table([FIRST, snapshot(2, "replace")], [statistics(1, 1, 2)])
    assert statistics_work(rewritten, ComputeTableStats(min_changed_share=0)).found
    assert not statistics_work(table([FIRST], [statistics(1, 1, 2)]), ComputeTableStats(min_changed_share=0)).found


def test_after_a_rollback_the_statistics_of_the_snapshot_rolled_back_to_count() -> None:
    entries = [statistics(1, 1, 2), statistics(2, 1, 2)]
    rolled_back = table([FIRST, snapshot(2, added_records=900, total_records=1000)], entries, current=1)
    assert not statistics_work(rolled_back, ComputeTableStats()).found


@pytest.mark.parametrize("wrong", ["nope", "many", "new"])
def test_a_column_that_cannot_have_statistics_is_refused_by_name(wrong: str) -> None:
    settings = ComputeTableStats(columns=["id", wrong])
    with pytest.raises(ConfigurationError, match=f"computeTableStats.columns names {wrong}: .* id, text"):
        statistics_columns(table([FIRST], []), settings)
    work = statistics_work(table([FIRST], []), settings)
    assert work.refusal is not None
    assert wrong in work.refusal


def test_a_column_that_the_snapshot_does_not_know_waits_for_the_next_commit() -> None:
    evolved = table([FIRST], [statistics(1, 1, 2)], schemas=[FIELDS, LATER])
    assert statistics_columns(evolved, ComputeTableStats()) == {1: "id", 2: "text"}
    assert not statistics_work(evolved, ComputeTableStats()).found
    committed = table([FIRST, {**snapshot(2), "schema-id": 1}], [statistics(1, 1, 2)], schemas=[FIELDS, LATER])
    assert statistics_work(committed, ComputeTableStats()).summary == "the statistics of snapshot 1 lack new"


kinds = st.tuples(
    st.sampled_from(["append", "overwrite", "delete", "replace"]),
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("added_records", "deleted_records", "total_records"), st.integers(0, 500))
    ),
)


@given(
    st.lists(kinds, min_size=1, max_size=8),
    st.dictionaries(st.integers(1, 8), st.sets(st.sampled_from([1, 2]), min_size=1)),
    st.sampled_from([[], ["id"], ["text", "id"]]),
    st.floats(0, 2),
    st.data(),
)
def test_once_is_enough(
    commits: list[tuple[str, dict[str, int]]],
    old: dict[int, set[int]],
    columns: list[str],
    share: float,
    data: st.DataObject,
) -> None:
    """Where there is work, an engine that writes what is asked leaves none, and is seen to have done it."""
    snapshots = [snapshot(number, kind, **counts) for number, (kind, counts) in enumerate(commits, start=1)]
    current = data.draw(st.integers(1, len(snapshots)))
    entries = [statistics(number, *sorted(fields)) for number, fields in old.items() if number <= len(snapshots)]
    settings = ComputeTableStats(columns=columns, min_changed_share=share)
    before = table(snapshots, entries, current=current)
    if not statistics_work(before, settings).found:
        return
    fields = statistics_columns(before, settings)
    detail = statistics_detail(before, fields)
    assert written_statistics(before, detail) is None
    left = [entry for entry in entries if entry["snapshot-id"] != current]
    after = table(snapshots, [*left, statistics(current, *fields, path="/t/metadata/new.stats")], current=current)
    assert statistics_work(after, settings).found is False
    found = written_statistics(after, detail)
    assert found is not None
    assert found.statistics_path == "/t/metadata/new.stats"


def test_statistics_that_were_there_or_lack_columns_or_are_of_an_older_snapshot_prove_nothing() -> None:
    second = [FIRST, snapshot(2, added_records=100, total_records=200)]
    detail = statistics_detail(table(second, [statistics(2, 1)]), [1, 2])
    for entries in (
        [],
        [statistics(2, 1)],
        [statistics(2, 1, path="/t/metadata/other.stats")],
        [statistics(1, 1, 2, path="/t/metadata/other.stats")],
    ):
        assert written_statistics(table(second, entries), detail) is None
    third = [*second, snapshot(3, added_records=1, total_records=201)]
    assert written_statistics(table(third, [statistics(3, 1, 2)]), detail) is not None
