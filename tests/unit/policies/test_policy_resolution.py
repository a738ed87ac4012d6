"""Each (table, operation) has exactly one governor, and every answer explains itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.errors import PolicyDisabled, PolicyDoesNotMatch, PolicyNotFound
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policies.patterns import InvalidPattern, TablePattern
from airflow_provider_floe.policies.resolution import (
    PolicyIndex,
    effective_priority,
    governing,
    resolve,
    shadow_warnings,
)
from airflow_provider_floe.tables import Operation, TableRef

ORDERS = TableRef.parse("lake.sales.orders")
EXPIRE, REWRITE, ORPHANS = Operation.EXPIRE_SNAPSHOTS, Operation.REWRITE_DATA_FILES, Operation.REMOVE_ORPHAN_FILES


def policy(name: str, pattern: str = "*", **fields: Any) -> Policy:
    return Policy(name=name, table_pattern=pattern, **fields)


BROAD = policy("broad", "lake.*.*", expire_snapshots={}, rewrite_data_files={})
NARROW = policy("narrow", "lake.sales.*", rewrite_data_files={})
URGENT = policy("urgent", priority=1, rewrite_data_files={})


def test_a_broad_policy_governs_expiry_while_a_narrow_one_governs_compaction() -> None:
    found = resolve([BROAD, NARROW], ORDERS)
    assert found[EXPIRE].policy is BROAD
    assert found[REWRITE].policy is NARROW
    assert found[REWRITE].explanation == (
        "governed by narrow because its pattern 'lake.sales.*' matches with effective priority 110 "
        "(priority 0, specificity 110); also matched by broad (100)"
    )
    assert found[ORPHANS].policy is None
    assert "none has orphanCleanup settings" in found[ORPHANS].explanation
    assert "narrow (110), broad (100)" in found[ORPHANS].explanation


def test_priority_outweighs_every_specificity() -> None:
    assert resolve([BROAD, NARROW, URGENT], ORDERS)[REWRITE].policy is URGENT
    assert effective_priority(URGENT) == 1000


def test_ties_go_to_the_name_that_sorts_first() -> None:
    found = resolve([policy("b", rewrite_data_files={}), policy("a", rewrite_data_files={})], ORDERS)[REWRITE]
    assert found.policy is not None
    assert found.policy.name == "a"
    assert "tie" in found.explanation


def test_disabled_policies_do_not_govern_but_are_named() -> None:
    off = policy("off", "lake.sales.orders", priority=9, enabled=False, rewrite_data_files={})
    found = resolve([NARROW, off], ORDERS)[REWRITE]
    assert found.policy is NARROW
    assert found.explanation.endswith("disabled, so not asked: off")
    alone = resolve([off], ORDERS)[REWRITE]
    assert alone.policy is None
    assert "no enabled policy matches lake.sales.orders" in alone.explanation
    assert "off" in alone.explanation


def test_an_operation_that_is_switched_off_keeps_its_governor() -> None:
    off = policy("off", "lake.sales.orders", rewrite_data_files={"enabled": False})
    found = resolve([BROAD, off], ORDERS)[REWRITE]
    assert found.policy is off
    assert "switches it off (rewriteDataFiles.enabled is false)" in found.explanation


@pytest.mark.parametrize(
    ("properties", "out"),
    [
        ({"floe.enabled": "false"}, set(Operation)),
        ({"floe.enabled": "FALSE "}, set(Operation)),
        ({"floe.enabled": "true"}, set()),
        ({"floe.expire_snapshots.enabled": "false"}, {EXPIRE}),
        ({"floe.expireSnapshots.enabled": "false"}, {EXPIRE}),
        ({"floe.orphanCleanup.enabled": "false"}, {ORPHANS}),
        ({"floe.remove_orphan_files.enabled": "false"}, {ORPHANS}),
    ],
)
def test_an_owner_opts_out_by_table_property(properties: dict[str, str], out: set[Operation]) -> None:
    everything = policy("all", **{operation.policy_key: {} for operation in Operation})
    found = resolve([everything], ORDERS, properties)
    assert {operation for operation, one in found.items() if one.policy is None} == out
    for operation in out:
        assert "opted out by table property floe." in found[operation].explanation
        assert "all would govern it" in found[operation].explanation


def test_explanations_stay_short_in_a_large_fleet() -> None:
    many = [policy(f"p{number:03}", rewrite_data_files={}) for number in range(300)]
    explanation = resolve(many, ORDERS)[REWRITE].explanation
    assert "also matched by p001 (0), p002 (0), p003 (0), p004 (0), p005 (0) and 294 more" in explanation


def test_a_policy_with_a_bad_pattern_is_named() -> None:
    with pytest.raises(InvalidPattern, match=r"policy 'bad': tablePattern: 'a\.\.b'"):
        resolve([policy("bad", "a..b")], ORDERS)


PATTERNS = ["*", "lake.*.*", "lake.sales.*", "lake.sales.orders", "orders", "l*.*.*", "web.*", r"/lake\..*/", "*.s*.*"]
TABLES = [ORDERS, TableRef.parse("lake.web.events"), TableRef.parse("pond.sales.orders"), TableRef.parse("lake.a.b.c")]
POLICIES = st.lists(
    st.builds(
        policy,
        st.sampled_from([f"p{number}" for number in range(12)]),
        st.sampled_from(PATTERNS),
        priority=st.integers(-1, 2),
        enabled=st.booleans(),
        rewrite_data_files=st.sampled_from([None, {}, {"enabled": False}]),
        expire_snapshots=st.sampled_from([None, {}]),
    ),
    max_size=8,
    unique_by=lambda one: one.name,
)


@pytest.mark.property
@given(POLICIES, st.sampled_from(TABLES), st.randoms(use_true_random=False))
def test_exactly_one_governor_whatever_the_order(policies: list[Policy], table: TableRef, random: Any) -> None:
    found = resolve(policies, table)
    shuffled = list(policies)
    random.shuffle(shuffled)
    assert resolve(tuple(shuffled), table) == found
    assert set(found) == set(Operation)
    for operation, governance in found.items():
        able = [
            one
            for one in policies
            if one.enabled and one.settings(operation) and TablePattern.parse(one.table_pattern).matches(table)
        ]
        if not able:
            assert governance.policy is None
            continue
        assert governance.policy == min(able, key=lambda one: (-effective_priority(one), one.name))
        assert governance.explanation.startswith(f"governed by {governance.policy.name} because")


@pytest.mark.property
@given(POLICIES, st.sampled_from(TABLES))
def test_a_table_run_is_governed_as_a_scheduled_one_or_says_why_not(policies: list[Policy], table: TableRef) -> None:
    matching = [one for one in policies if TablePattern.parse(one.table_pattern).matches(table)]
    index = PolicyIndex(policies)
    if any(one.enabled and one.operations for one in matching):
        assert governing(index, table) == resolve(index, table)
    elif matching and not any(one.enabled for one in matching):
        with pytest.raises(PolicyDisabled, match=matching[0].name if len(matching) == 1 else "disabled"):
            governing(index, table)
    else:
        with pytest.raises(PolicyNotFound, match=str(table)):
            governing(index, table)


def test_a_named_policy_governs_alone() -> None:
    found = governing([BROAD, NARROW, URGENT], ORDERS, named="broad")
    assert found[REWRITE].policy is BROAD
    assert found[EXPIRE].policy is BROAD
    assert found[ORPHANS].policy is None


def test_the_ways_in_which_nothing_can_govern_are_different_errors() -> None:
    off = policy("off", enabled=False, rewrite_data_files={})
    with pytest.raises(PolicyNotFound, match=r"no policy matches table pond\.a\.b \(policies: narrow, broad\)"):
        governing([BROAD, NARROW], TableRef.parse("pond.a.b"))
    with pytest.raises(PolicyNotFound, match="no policy configures an operation"):
        governing([policy("empty")], ORDERS)
    with pytest.raises(PolicyNotFound, match=r"there is no policy named 'brod'.*broad"):
        governing([BROAD], ORDERS, named="brod")
    with pytest.raises(PolicyDisabled, match=r"every policy that matches.*off"):
        governing([off], ORDERS)
    with pytest.raises(PolicyDisabled, match="policy 'off' is disabled"):
        governing([BROAD, off], ORDERS, named="off")
    with pytest.raises(
        PolicyDoesNotMatch, match=r"'narrow' does not match table lake\.web\.events: .*'lake\.sales\.\*'"
    ):
        governing([BROAD, NARROW], TableRef.parse("lake.web.events"), named="narrow")
    assert governing([BROAD], ORDERS, properties={"floe.enabled": "false"})[REWRITE].policy is None


DAILY = {"interval": 1}


def test_a_policy_on_demand_that_shadows_a_schedule_is_warned_of() -> None:
    scheduled = policy("nightly", "lake.*.*", expire_snapshots={}, expire_snapshots_schedule=DAILY)
    on_demand = policy("by-hand", "lake.sales.*", expire_snapshots={})
    (warning,) = shadow_warnings([scheduled, on_demand])
    assert warning.startswith("by-hand governs expire_snapshots without an enabled schedule and outranks nightly (100)")
    assert "expireSnapshotsSchedule" in warning


@pytest.mark.parametrize(
    "harmless",
    [
        policy("x", "lake.sales.*", expire_snapshots={}, expire_snapshots_schedule=DAILY),
        policy("x", "lake.sales.*", expire_snapshots={"enabled": False}),
        policy("x", "lake.sales.*", expire_snapshots={}, enabled=False),
        policy("x", "lake.sales.*", expire_snapshots={}, priority=-1),
        policy("x", "pond.sales.*", expire_snapshots={}),
        policy("x", "lake.sales.*", rewrite_data_files={}),
    ],
)
def test_no_warning_where_nothing_is_shadowed(harmless: Policy) -> None:
    nightly = policy("nightly", "lake.*.*", expire_snapshots={}, expire_snapshots_schedule=DAILY)
    assert shadow_warnings([nightly, harmless]) == []


def test_a_disabled_schedule_shadows_like_none() -> None:
    nightly = policy("nightly", "lake.*.*", expire_snapshots={}, expire_snapshots_schedule=DAILY)
    paused = policy("paused", "lake.s*.*", expire_snapshots={}, expire_snapshots_schedule={**DAILY, "enabled": False})
    assert len(shadow_warnings([nightly, paused])) == 1
