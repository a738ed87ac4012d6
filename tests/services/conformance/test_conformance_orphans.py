"""Removing orphan files: what goes, what stays, and what is refused, on each engine."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import ORPHANS, Target
from conformance_lake import Lake
from harness.merge_on_read import position_delete
from harness.tables import data_files
from pyiceberg.table import Table

from airflow_provider_floe.planning.model import Disposition

pytestmark = pytest.mark.services


@pytest.mark.every_version
def test_orphans_go_and_everything_else_stays(target: Target, lake: Lake) -> None:
    table = lake.table(2, parts=("a", "b"))
    table.overwrite(table.scan().to_arrow())  # so that older snapshots need files of their own
    position_delete(table, {data_files(table)[0].file_path: [0]})
    names = ("data/lost.parquet", "data/part=x y/é+(1) 'q'.parquet", "metadata/lost-m0.avro", "data/a/b/c.bin")
    strays = {lake.put(table, name) for name in names}
    target.look_later(days=9)
    done = target.maintain(table, ORPHANS, again="no work")
    assert done.deleted == strays


def test_young_files_stay(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    stray = lake.put(table, "data/young.parquet")
    target.look_later(days=2)
    target.nothing_to_do(table, ORPHANS, {"retentionPeriodInDays": 3})
    assert table.io.new_input(stray).exists()


def test_metadata_files_are_never_orphans(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    kept = {lake.put(table, "metadata/00007-lost.metadata.json"), lake.put(table, "metadata/version-hint.text")}
    stray = lake.put(table, "data/lost.parquet")
    target.look_later(days=9)
    if target.is_one_of("trino"):
        target.fails("Trino cannot spare them", table, ORPHANS)
        return
    done = target.maintain(table, ORPHANS)
    assert done.deleted == {stray}
    assert kept <= done.after.stored.keys()


def test_what_the_policy_excludes_stays(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    kept, stray = lake.put(table, "data/checkpoint.keep"), lake.put(table, "data/lost.parquet")
    target.look_later(days=9)
    settings = {"excludePatterns": ["*.keep"]}
    if target.is_one_of("trino"):
        target.refuses("setting excludePatterns=['*.keep']", table, ORPHANS, settings)
        return
    done = target.maintain(table, ORPHANS, settings)
    assert (done.deleted, kept in done.after.stored) == ({stray}, True)


def test_only_below_the_location_of_the_policy(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    stray, outside = lake.put(table, "data/inner/lost.parquet"), lake.put(table, "metadata/lost.avro")
    target.look_later(days=9)
    settings = {"location": f"{table.location()}/data"}
    if target.is_one_of("trino"):
        target.refuses("setting location=", table, ORPHANS, settings)
        return
    done = target.maintain(table, ORPHANS, settings)
    assert (done.deleted, outside in done.after.stored) == ({stray}, True)


@pytest.mark.parametrize(
    "settings", [{"equalSchemes": {"s3a,s3n": "s3"}}, {"equalAuthorities": {"other": "warehouse"}}]
)
def test_equal_schemes_and_authorities(target: Target, lake: Lake, settings: dict[str, Any]) -> None:
    table = lake.table(1)
    stray = lake.put(table, "data/lost.parquet")
    target.look_later(days=9)
    assert target.maintain(table, ORPHANS, settings).deleted == {stray}


@pytest.mark.parametrize("cap", [{"maxDeleteFiles": 1}, {"maxDeleteBytes": 5}, {"maxDeleteShare": 0.01}])
def test_a_cap_halts_it_before_anything_is_deleted(target: Target, lake: Lake, cap: dict[str, float]) -> None:
    table = lake.table(1)
    for number in range(2):
        lake.put(table, f"data/stray-{number}.parquet")
    target.look_later(days=9)
    (name,) = cap
    target.fails(name, table, ORPHANS, cap)


def test_with_a_table_inside_it_nothing_is_removed(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    lake.put(table, "data/stray.parquet")
    beside(lake, table, location=f"{table.location()}/data/inner")
    target.look_later(days=9)
    target.refuses("belongs to another table", table, ORPHANS)


def test_with_another_tables_data_inside_it_nothing_is_removed(target: Target, lake: Lake) -> None:
    table = lake.table(1)
    lake.put(table, "data/stray.parquet")
    beside(lake, table, properties={"write.data.path": f"{table.location()}/data/inner"})
    target.look_later(days=9)
    record = target.fails("data/inner", table, ORPHANS)
    assert record.error_type == "UnsafeLocation"


def beside(lake: Lake, table: Table, **options: Any) -> None:
    """Another table of the namespace."""
    identifier = (*table.name()[:-1], "other")
    lake.made.append(identifier)
    lake.catalog.create_table(identifier, schema=table.schema(), **options)


def test_a_listing_that_lacks_a_file_is_no_ground_to_delete(target: Target, lake: Lake) -> None:
    table = lake.table(2)
    stray = lake.put(table, "data/stray.parquet")
    table.io.delete(data_files(table)[0].file_path)
    target.look_later(days=9)
    found = target.run(table, {ORPHANS: {}})
    assert not found.records
    (item,) = (item for item in found.plan.items if item.operation is ORPHANS)
    assert item.disposition is Disposition.REFUSED
    assert "partial" in " ".join(item.reasons)
    assert table.io.new_input(stray).exists()


def test_a_table_that_forbids_deletion(target: Target, lake: Lake) -> None:
    table = lake.table(1, properties={"gc.enabled": "false"})
    lake.put(table, "data/stray.parquet")
    target.look_later(days=9)
    target.refuses("gc.enabled", table, ORPHANS)


def test_tables_without_orphans_are_left_alone(target: Target, lake: Lake) -> None:
    target.look_later(days=9)
    for table in (lake.table(0), lake.table(2)):
        target.nothing_to_do(table, ORPHANS)
