from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2

from airflow_provider_floe.errors import ConfigurationError, RetentionRefused
from airflow_provider_floe.iceberg.retention import ExpirePlan, snapshots_to_expire
from airflow_provider_floe.policies.model import ExpireSnapshots

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000


def metadata(
    parents: list[int | None],
    ages_hours: list[int],
    refs: dict[str, dict[str, Any]],
    *,
    properties: dict[str, str] | None = None,
    summaries: dict[int, dict[str, str]] | None = None,
) -> TableMetadata:
    """Snapshot ids are 1, 2, ...; ``parents`` holds ids."""
    snapshots = [
        {
            "snapshot-id": number,
            "parent-snapshot-id": parent,
            "sequence-number": number,
            "timestamp-ms": NOW_MS - age * HOUR_MS,
            "manifest-list": f"/t/metadata/snap-{number}.avro",
            "summary": {"operation": "append", **((summaries or {}).get(number, {}))},
        }
        for number, (parent, age) in enumerate(zip(parents, ages_hours, strict=True), start=1)
    ]
    return TableMetadataV2.model_validate(
        {
            "format-version": 2,
            "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
            "location": "/t",
            "last-sequence-number": len(parents),
            "last-updated-ms": NOW_MS,
            "last-column-id": 1,
            "schemas": [{"type": "struct", "schema-id": 0, "fields": []}],
            "current-schema-id": 0,
            "partition-specs": [{"spec-id": 0, "fields": []}],
            "default-spec-id": 0,
            "last-partition-id": 999,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "default-sort-order-id": 0,
            "properties": properties or {},
            "snapshots": snapshots,
            "refs": refs,
            "current-snapshot-id": refs["main"]["snapshot-id"] if "main" in refs else None,
        }
    )


def branch(snapshot_id: int, **settings: int) -> dict[str, Any]:
    return {"snapshot-id": snapshot_id, "type": "branch", **{k.replace("_", "-"): v for k, v in settings.items()}}


def tag(snapshot_id: int, **settings: int) -> dict[str, Any]:
    return {**branch(snapshot_id, **settings), "type": "tag"}


def policy(retain_last: int = 1, hours: float = 1, **settings: Any) -> ExpireSnapshots:
    return ExpireSnapshots(retain_last=retain_last, max_snapshot_age=timedelta(hours=hours), **settings)


def line(count: int, refs: dict[str, dict[str, Any]] | None = None, **settings: Any) -> TableMetadata:
    """One branch of ``count`` snapshots, the newest 1 hour old, the others an hour older each."""
    parents = [None, *range(1, count)]
    return metadata(parents, [count - n for n in range(count)], {"main": branch(count), **(refs or {})}, **settings)


def test_keeps_the_last_and_the_young() -> None:
    assert snapshots_to_expire(line(10), policy(retain_last=3), NOW).snapshot_ids == (1, 2, 3, 4, 5, 6, 7)
    assert snapshots_to_expire(line(10), policy(hours=4), NOW).snapshot_ids == (1, 2, 3, 4, 5, 6)


def test_every_snapshot_that_stays_says_why() -> None:
    plan = snapshots_to_expire(line(4, {"audit": tag(2)}), policy(retain_last=2), NOW)
    assert plan.snapshot_ids == (1,)
    assert plan.kept == {
        4: "the head of branch main",
        3: "one of the last 2 on branch main",
        2: "the head of tag audit",
    }


@pytest.mark.parametrize(
    "properties",
    [
        {"history.expire.min-snapshots-to-keep": "4"},
        {"history.expire.max-snapshot-age-ms": str(4 * HOUR_MS)},
    ],
)
def test_promise_9_table_retention_is_a_floor(properties: dict[str, str]) -> None:
    table = line(10, properties=properties)
    assert snapshots_to_expire(table, policy(), NOW).snapshot_ids == (1, 2, 3, 4, 5, 6)
    assert len(snapshots_to_expire(table, policy(retain_last=8), NOW).snapshot_ids) == 2
    below = policy(allow_below_table_retention=True)
    assert snapshots_to_expire(table, below, NOW).snapshot_ids == tuple(range(1, 10))


def test_promise_9_a_refs_own_retention_is_a_floor_even_below_the_tables() -> None:
    refs = {"main": branch(10, min_snapshots_to_keep=4)}
    below = policy(allow_below_table_retention=True)
    assert len(snapshots_to_expire(line(10, refs), below, NOW).snapshot_ids) == 6
    less = {"main": branch(10, min_snapshots_to_keep=1, max_snapshot_age_ms=1)}
    assert len(snapshots_to_expire(line(10, less), policy(retain_last=7), NOW).snapshot_ids) == 3


def test_promise_9_staged_snapshots_stay_until_published() -> None:
    parents, ages = [None, 1, 1, 2], [50, 40, 40, 30]
    refs = {"main": branch(4)}
    staged = metadata(parents, ages, refs, summaries={3: {"wap.id": "w1"}})
    assert snapshots_to_expire(staged, policy(), NOW).snapshot_ids == (1, 2)
    published = metadata(parents, ages, refs, summaries={3: {"wap.id": "w1"}, 4: {"published-wap-id": "w1"}})
    assert snapshots_to_expire(published, policy(), NOW).snapshot_ids == (1, 2, 3)


def test_snapshots_on_no_branch_go_by_age() -> None:
    rolled_back = metadata([None, 1, 1, 1], [50, 40, 2, 1], {"main": branch(4)})
    assert snapshots_to_expire(rolled_back, policy(hours=10), NOW).snapshot_ids == (1, 2)


def test_refs_go_only_past_an_age_that_was_set() -> None:
    refs = {"old": tag(1, max_ref_age_ms=5 * HOUR_MS), "kept": tag(2), "main": branch(10, max_ref_age_ms=1)}
    plan = snapshots_to_expire(line(10, refs), policy(), NOW)
    assert plan.refs_to_drop == ("old",)
    assert 1 in plan.snapshot_ids
    assert 2 not in plan.snapshot_ids
    by_table = line(10, {"kept": tag(2)}, properties={"history.expire.max-ref-age-ms": str(HOUR_MS)})
    assert snapshots_to_expire(by_table, policy(), NOW).refs_to_drop == ("kept",)


def test_one_snapshot_is_expired_alone() -> None:
    assert snapshots_to_expire(line(5), policy(expire_snapshot_id=3), NOW).snapshot_ids == (3,)
    assert snapshots_to_expire(line(5), policy(expire_snapshot_id=99), NOW).empty


@pytest.mark.parametrize(
    ("table", "snapshot_id", "named"),
    [
        (line(5), 5, "branch main"),
        (line(5, {"audit": tag(2)}), 2, "tag audit"),
        (line(5, properties={"history.expire.min-snapshots-to-keep": "3"}), 3, "one of the last 3 on branch main"),
        (metadata([None, 1, 1], [9, 9, 8], {"main": branch(3)}, summaries={2: {"wap.id": "w7"}}), 2, "wap.id=w7"),
    ],
)
def test_one_snapshot_that_a_ref_needs_is_refused_by_name(table: TableMetadata, snapshot_id: int, named: str) -> None:
    with pytest.raises(RetentionRefused, match=named):
        snapshots_to_expire(table, policy(expire_snapshot_id=snapshot_id), NOW)


def test_a_property_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"min-snapshots-to-keep='many'"):
        snapshots_to_expire(line(2, properties={"history.expire.min-snapshots-to-keep": "many"}), policy(), NOW)


@st.composite
def tables(draw: st.DrawFn) -> TableMetadata:
    count = draw(st.integers(1, 12))
    parents = [None, *(draw(st.one_of(st.none(), st.integers(1, n))) for n in range(1, count))]
    ages = [draw(st.integers(0, 60)) for _ in range(count)]
    ids = st.integers(1, count)
    ages_ms = st.integers(1, 60 * HOUR_MS)
    refs = {"main": branch(draw(ids))} if draw(st.booleans()) else {}
    for name in draw(st.sets(st.sampled_from("abc"))):
        settings: dict[str, int] = {}
        if draw(st.booleans()):
            settings["max_ref_age_ms"] = draw(ages_ms)
        if kind := draw(st.booleans()):
            if draw(st.booleans()):
                settings["min_snapshots_to_keep"] = draw(st.integers(1, 6))
            if draw(st.booleans()):
                settings["max_snapshot_age_ms"] = draw(ages_ms)
        refs[name] = (branch if kind else tag)(draw(ids), **settings)
    properties = {}
    if draw(st.booleans()):
        properties["history.expire.min-snapshots-to-keep"] = str(draw(st.integers(1, 6)))
    if draw(st.booleans()):
        properties["history.expire.max-snapshot-age-ms"] = str(draw(ages_ms))
    summaries = {n: {"wap.id": f"w{n}"} for n in draw(st.sets(ids, max_size=3))}
    return metadata(parents, ages, refs, properties=properties, summaries=summaries)


policies = st.builds(
    policy,
    retain_last=st.integers(1, 8),
    hours=st.integers(1, 60),
    allow_below_table_retention=st.booleans(),
)


def without(table: TableMetadata, plan: ExpirePlan) -> TableMetadata:
    gone = set(plan.snapshot_ids)
    return table.model_copy(
        update={
            "snapshots": [
                s.model_copy(update={"parent_snapshot_id": None}) if s.parent_snapshot_id in gone else s
                for s in table.snapshots
                if s.snapshot_id not in gone
            ],
            "refs": {name: ref for name, ref in table.refs.items() if name not in plan.refs_to_drop},
        }
    )


@given(tables(), policies)
def test_heads_never_expire_and_everything_is_accounted_for(table: TableMetadata, settings: ExpireSnapshots) -> None:
    plan = snapshots_to_expire(table, settings, NOW)
    heads = {ref.snapshot_id for name, ref in table.refs.items() if name not in plan.refs_to_drop}
    assert heads.isdisjoint(plan.snapshot_ids)
    assert "main" not in plan.refs_to_drop
    assert {*plan.snapshot_ids, *plan.kept} == {s.snapshot_id for s in table.snapshots}
    assert set(plan.snapshot_ids).isdisjoint(plan.kept)


@given(tables(), policies)
def test_expiring_again_right_after_finds_nothing(table: TableMetadata, settings: ExpireSnapshots) -> None:
    plan = snapshots_to_expire(table, settings, NOW)
    assert snapshots_to_expire(without(table, plan), settings, NOW).empty


@given(tables(), policies, st.integers(0, 5), st.integers(0, 20))
def test_a_policy_that_keeps_more_expires_no_more(
    table: TableMetadata, settings: ExpireSnapshots, more: int, hours: int
) -> None:
    longer = settings.model_copy(
        update={
            "retain_last": settings.retain_last + more,
            "max_snapshot_age": settings.max_snapshot_age + timedelta(hours=hours),
        }
    )
    expired = set(snapshots_to_expire(table, settings, NOW).snapshot_ids)
    assert set(snapshots_to_expire(table, longer, NOW).snapshot_ids) <= expired


@given(tables(), policies)
def test_floors_only_ever_keep_more(table: TableMetadata, settings: ExpireSnapshots) -> None:
    strict = settings.model_copy(update={"allow_below_table_retention": False})
    loose = settings.model_copy(update={"allow_below_table_retention": True})
    assert set(snapshots_to_expire(table, strict, NOW).snapshot_ids) <= set(
        snapshots_to_expire(table, loose, NOW).snapshot_ids
    )
