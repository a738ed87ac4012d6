"""Expiring snapshots: what policy, table, branches and tags keep, and the files that go, on each engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from conformance import EXPIRE, Target
from conformance_lake import Lake
from harness.tables import rows
from pyiceberg.table import Table

pytestmark = pytest.mark.services

DAY = int(timedelta(days=1).total_seconds() * 1000)
SHORT: dict[str, Any] = {"retainLast": 1, "maxSnapshotAge": "P1D"}


def ids(table: Table) -> list[int]:
    return [one.snapshot_id for one in table.metadata.snapshots]


def overwritten(lake: Lake, times: int = 3, **options: Any) -> Table:
    """Its older snapshots hold files of their own."""
    table = lake.table(0, **options)
    for number in range(times):
        table.overwrite(rows(number * 100, 10 + number))
    return table


def old(lake: Lake, table: Table, *young: float) -> Table:
    """Its snapshots ten days old and younger, the last ones so many days."""
    snapshots = len(table.metadata.snapshots)
    ages = [10 - number / 100 for number in range(snapshots - len(young))]
    return lake.aged(table, [*ages, *young])


@pytest.mark.every_version
def test_old_snapshots_go_with_the_files_that_only_they_need(target: Target, lake: Lake) -> None:
    table = old(lake, overwritten(lake))
    done = target.maintain(table, EXPIRE, SHORT)
    assert ids(done.table) == ids(table)[-1:]
    assert any(path.endswith(".parquet") for path in done.deleted)


def test_the_last_snapshots_stay_however_old(target: Target, lake: Lake) -> None:
    table = old(lake, lake.table(5))
    done = target.maintain(table, EXPIRE, {"retainLast": 3, "maxSnapshotAge": "P1D"})
    assert ids(done.table) == ids(table)[-3:]


def test_young_snapshots_stay_however_many(target: Target, lake: Lake) -> None:
    table = old(lake, lake.table(5), 3.0, 2.0)
    done = target.maintain(table, EXPIRE, {"retainLast": 1, "maxSnapshotAge": "P5D"})
    assert ids(done.table) == ids(table)[-2:]


def test_one_snapshot_by_its_id(target: Target, lake: Lake) -> None:
    table = old(lake, overwritten(lake, 4))
    wanted = ids(table)[1]
    settings = {"expireSnapshotId": wanted}
    if target.is_one_of("trino"):
        target.refuses(f"setting expireSnapshotId={wanted}", table, EXPIRE, settings)
        return
    done = target.maintain(table, EXPIRE, settings)
    assert ids(done.table) == [one for one in ids(table) if one != wanted]


def test_a_tagged_snapshot_is_not_expired_by_its_id(target: Target, lake: Lake) -> None:
    table = lake.table(3)
    wanted = ids(table)[0]
    table.manage_snapshots().create_tag(wanted, "audit").commit()
    settings = {"expireSnapshotId": wanted}
    target.refuses("head of tag audit", table, EXPIRE, settings)


def test_schemas_and_specs_that_no_snapshot_has_any_more_go(target: Target, lake: Lake) -> None:
    table = lake.table(2)
    with table.update_schema() as schema:
        schema.rename_column("text", "words")
    table.append(table.scan().to_arrow())
    table = old(lake, table)
    settings = {**SHORT, "cleanExpiredMetadata": True}
    if target.is_one_of("trino-476"):
        target.refuses("setting cleanExpiredMetadata=True", table, EXPIRE, settings)
        return
    # Whether more schemas could go is known after reading manifests only
    done = target.maintain(table, EXPIRE, settings)
    assert len(done.table.metadata.schemas) == 1 < len(table.metadata.schemas)


def test_branches_and_tags_keep_their_snapshots(target: Target, lake: Lake) -> None:
    table = overwritten(lake, 3)
    first, second = ids(table)[0], ids(table)[1]
    table.manage_snapshots().create_tag(first, "audit").create_branch(second, "side").commit()
    table = old(lake, table)
    done = target.maintain(table, EXPIRE, SHORT)
    assert {first, second, table.metadata.current_snapshot_id} <= set(ids(done.table))
    assert done.after.refs.keys() == {"audit", "side"}


def test_a_branch_with_an_age_of_its_own_is_a_floor(target: Target, lake: Lake) -> None:
    table = overwritten(lake, 4)
    head = ids(table)[2]
    table.manage_snapshots().create_branch(head, "long", max_snapshot_age_ms=30 * DAY).commit()
    table = old(lake, table)
    if target.is_one_of("trino"):
        # It knows ages only, so that all that is younger than what is kept stays too
        assert "older ones are to be kept" in target.changes_nothing(table, EXPIRE, SHORT)
        return
    done = target.maintain(table, EXPIRE, SHORT)
    assert ids(done.table) == [*ids(table)[:3], ids(table)[-1]]


def test_a_branch_that_would_have_spark_expire_more_than_the_policy(target: Target, lake: Lake) -> None:
    table = overwritten(lake, 4)
    head = ids(table)[2]
    table.manage_snapshots().create_branch(head, "short", max_snapshot_age_ms=DAY, min_snapshots_to_keep=1).commit()
    table.overwrite(rows(900, 5))
    table = old(lake, table)
    settings = {"retainLast": 2, "maxSnapshotAge": "P1D"}
    if target.is_one_of("spark"):
        target.fails("branch short sets a snapshot age of its own", table, EXPIRE, settings)
        return
    if target.is_one_of("trino"):
        # It knows ages only, so that all that is younger than what is kept stays too
        left_over = 1 if target.is_one_of("trino-483") else 0  # a data file that 483 overlooks
        done = target.maintain(table, EXPIRE, settings, again="run", left_over=left_over)
        assert ids(done.table) == ids(table)[1:]
        return
    done = target.maintain(table, EXPIRE, settings)
    assert ids(done.table) == [*ids(table)[1:3], *ids(table)[-2:]], "two on each branch"


def test_a_tag_past_its_age_goes_with_its_snapshot(target: Target, lake: Lake) -> None:
    table = overwritten(lake, 3)
    first = ids(table)[0]
    table.manage_snapshots().create_tag(first, "brief", max_ref_age_ms=DAY).commit()
    table = old(lake, table)
    # Trino 476 overlooks a data file where a tag goes too
    done = target.maintain(table, EXPIRE, SHORT, left_over=1 if target.is_one_of("trino-476") else 0)
    assert not done.after.refs
    assert ids(done.table) == ids(table)[-1:]


@pytest.mark.parametrize(
    "floor",
    [{"history.expire.min-snapshots-to-keep": "10"}, {"history.expire.max-snapshot-age-ms": str(20 * DAY)}],
    ids=["count", "age"],
)
def test_what_the_table_asks_to_keep_is_a_floor(target: Target, lake: Lake, floor: dict[str, str]) -> None:
    table = old(lake, lake.table(4, properties=floor))
    target.nothing_to_do(table, EXPIRE, SHORT)
    settings = {**SHORT, "allowBelowTableRetention": True}
    if target.is_one_of("trino-476"):
        target.refuses("setting allowBelowTableRetention=True", table, EXPIRE, settings)
        return
    done = target.maintain(table, EXPIRE, settings)
    assert ids(done.table) == ids(table)[-1:]


def test_a_floor_below_the_policy_changes_nothing(target: Target, lake: Lake) -> None:
    properties = {"history.expire.min-snapshots-to-keep": "1", "history.expire.max-snapshot-age-ms": "1"}
    table = old(lake, lake.table(5, properties=properties))
    done = target.maintain(table, EXPIRE, {"retainLast": 4, "maxSnapshotAge": "P1D"})
    assert ids(done.table) == ids(table)[-4:]


def test_a_staged_snapshot_is_kept(target: Target, lake: Lake) -> None:
    name = lake.spark_table("id BIGINT", properties={"write.wap.enabled": "true"})
    lake.sql(
        f"INSERT INTO {name} VALUES (1)",
        "SET spark.wap.id = audit-7",
        f"INSERT INTO {name} VALUES (2)",
        "RESET spark.wap.id",
        f"INSERT INTO {name} VALUES (3)",
        f"INSERT INTO {name} VALUES (4)",
    )
    table = lake.load(name)
    (staged,) = (
        one.snapshot_id
        for one in table.metadata.snapshots
        if one.summary and one.summary.additional_properties.get("wap.id")
    )
    table = old(lake, table)
    if target.is_one_of("trino"):
        # It knows ages only: what is staged keeps whatever is younger
        done = target.maintain(table, EXPIRE, SHORT, again="run")
    else:
        done = target.maintain(table, EXPIRE, SHORT)
    assert staged in ids(done.table)
    assert len(ids(done.table)) < 4


def test_deletes_and_vectors_of_version_3(target: Target, lake: Lake) -> None:
    properties = {"format-version": "3", "write.delete.mode": "merge-on-read"}
    name = lake.spark_table("id BIGINT", properties=properties)
    lake.sql(
        f"INSERT INTO {name} SELECT id FROM range(0, 20)",
        f"DELETE FROM {name} WHERE id % 5 = 0",
        f"DELETE FROM {name} WHERE id % 5 = 1",
    )
    table = old(lake, lake.load(name))
    if refusal := target.refused_feature(EXPIRE, "format-v3", "deletion-vectors"):
        target.refuses(refusal, table, EXPIRE, SHORT)
        return
    done = target.maintain(table, EXPIRE, SHORT)
    assert any(path.endswith(".puffin") for path in done.deleted)
    assert done.after.lineage is not None


def test_a_table_that_forbids_deletion(target: Target, lake: Lake) -> None:
    table = old(lake, lake.table(3, properties={"gc.enabled": "false"}))
    target.refuses("gc.enabled", table, EXPIRE, SHORT)


@pytest.mark.parametrize("cap", [{"maxDeleteFiles": 1}, {"maxDeleteBytes": 1}, {"maxDeleteShare": 0.01}])
def test_a_cap_halts_it_before_anything_is_deleted(target: Target, lake: Lake, cap: dict[str, float]) -> None:
    table = old(lake, overwritten(lake))
    (name,) = cap
    target.fails(name, table, EXPIRE, {**SHORT, **cap})


def test_tables_without_old_snapshots_are_left_alone(target: Target, lake: Lake) -> None:
    for table in (lake.table(0), old(lake, lake.table(1)), lake.table(3)):
        target.nothing_to_do(table, EXPIRE, SHORT)
