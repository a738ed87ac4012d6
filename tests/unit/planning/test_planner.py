"""A plan as a whole: one decision each, the same for the same arguments, every one with its reason."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_builders import DUE, SLOT, engine, inputs, issue, policy, report, request, requests, work

from airflow_provider_floe.health.report import IssueType
from airflow_provider_floe.planning.model import (
    Budgets,
    Disposition,
    OperationHistory,
    Plan,
    PlanItem,
    PlanRequest,
    RunMode,
)
from airflow_provider_floe.planning.planner import plan
from airflow_provider_floe.tables import RUN_ORDER, Operation

some = settings(max_examples=40)
"""Whole requests are slow to draw."""

REWRITE, _, MANIFESTS, _, EXPIRE, ORPHANS = RUN_ORDER


def decision(made: Plan, operation: Operation, name: str = "t") -> PlanItem:
    return next(item for item in made.items if item.operation is operation and item.table.name == name)


@some
@given(requests())
def test_every_operation_of_every_table_gets_exactly_one_decision_with_a_reason(asked: PlanRequest) -> None:
    made = plan(asked)
    assert [(item.table.name, item.operation) for item in made.items] == [
        (name, operation)
        for name in sorted(table.report.table.name for table in asked.tables)
        for operation in RUN_ORDER
    ]
    assert all(item.reasons and all(item.reasons) for item in made.items)
    assert all(gate.reason for item in made.items for gate in item.gates)


@some
@given(requests(), st.randoms(use_true_random=False))
def test_the_same_request_in_any_order_of_tables_gives_the_same_decisions(
    asked: PlanRequest, shuffle: random.Random
) -> None:
    tables = list(asked.tables)
    shuffle.shuffle(tables)
    first, again = plan(asked), plan(replace(asked, tables=tuple(tables)))
    assert first.model_dump(exclude={"id"}) == again.model_dump(exclude={"id"})


@some
@given(requests())
def test_what_runs_was_let_through_by_every_gate_and_has_work_and_an_engine(asked: PlanRequest) -> None:
    by_name = {table.report.table.name: table for table in asked.tables}
    made = plan(asked)
    running = {(item.table, item.operation) for item in made.items if item.disposition is Disposition.RUN}
    for item in made.items:
        if item.disposition is not Disposition.RUN:
            continue
        table = by_name[item.table.name]
        found = table.report.work.get(item.operation)
        assert found is None or found.refusal is None
        assert found is None or found.found is not False or (item.table, item.follows) in running
        assert all(gate.passed is not False for gate in item.gates)
        assert item.engine in asked.capabilities
        assert asked.operations is None or item.operation in asked.operations
        if asked.mode is RunMode.SCHEDULED and not asked.force:
            assert item.slot is not None
            assert table.due[item.operation].in_window


@some
@given(requests())
def test_a_slot_stands_on_exactly_the_governed_due_decisions_of_scheduled_runs(asked: PlanRequest) -> None:
    by_name = {table.report.table.name: table for table in asked.tables}
    outside = (Disposition.NOT_ASKED, Disposition.NOT_GOVERNED, Disposition.SWITCHED_OFF)
    for item in plan(asked).items:
        due = by_name[item.table.name].due[item.operation]
        answers = asked.mode is RunMode.SCHEDULED and due.due and item.disposition not in outside
        assert item.slot == (due.latest_slot if answers else None)


@some
@given(requests(), st.booleans())
def test_a_run_without_work_does_nothing_even_when_forced_and_with_history_cleared(
    asked: PlanRequest, force: bool
) -> None:
    cleared = tuple(
        replace(
            table,
            history=dict.fromkeys(Operation, OperationHistory()),
            report=table.report.model_copy(update={"work": {op: work(op, False) for op in Operation}}),
        )
        for table in asked.tables
    )
    made = plan(replace(asked, tables=cleared, force=force))
    assert made.to_run == ()
    assert made.batches == ()


def test_item_ids_are_the_same_for_the_same_request_and_differ_when_a_cleared_run_plans_again() -> None:
    asked = request(inputs(report("a")), inputs(report("b")))
    ids = [item.id for item in plan(asked).items]
    assert len(set(ids)) == 2 * len(Operation)
    assert ids == [item.id for item in plan(asked).items]
    assert not set(ids) & {item.id for item in plan(replace(asked, run_id="run-2")).items}
    assert not set(ids) & {item.id for item in plan(replace(asked, now=asked.now + timedelta(minutes=5))).items}


def test_a_table_that_stands_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"lake\.db\.t stands twice"):
        plan(request(inputs(report()), inputs(report())))


def test_the_item_freezes_policy_settings_schedule_and_snapshot() -> None:
    governor = policy(
        rewriteDataFiles={"targetFileSizeBytes": 1000},
        rewriteDataFilesSchedule={"interval": 1, "timeout": 3, "priority": 7},
    )
    item = decision(plan(request(inputs(report(works=(work(REWRITE),)), governor=governor))), REWRITE)
    assert item.disposition is Disposition.RUN
    assert (item.policy, item.policy_revision) == ("events", governor.revision)
    assert item.settings["targetFileSizeBytes"] == 1000
    assert (item.timeout_hours, item.schedule_priority) == (3, 7)
    assert (item.table_uuid, item.snapshot_id, item.slot) == ("uuid-t", 7, SLOT)


def test_operations_that_the_run_does_not_name_are_not_asked_for() -> None:
    asked = request(inputs(report()), mode=RunMode.TABLE_CONF, operations=frozenset({EXPIRE}))
    made = plan(asked)
    assert decision(made, REWRITE).disposition is Disposition.NOT_ASKED
    assert "expire_snapshots only" in decision(made, REWRITE).reasons[0]
    assert decision(made, EXPIRE).disposition is Disposition.RUN


def test_an_operation_without_settings_is_not_governed_and_one_that_is_disabled_is_switched_off() -> None:
    governor = policy(rewriteDataFiles={"enabled": False}, expireSnapshots=None)
    made = plan(request(inputs(report(works=(work(REWRITE), work(EXPIRE))), governor=governor)))
    assert decision(made, EXPIRE).disposition is Disposition.NOT_GOVERNED
    off = decision(made, REWRITE)
    assert off.disposition is Disposition.SWITCHED_OFF
    assert off.reasons == ("policy events has rewriteDataFiles.enabled=false",)


def test_not_due_keeps_the_reason_why_it_is_a_candidate_and_says_the_next_slot() -> None:
    due = replace(DUE, consumed_slot=SLOT)
    health = report(works=(work(REWRITE),), issues=(issue(IssueType.TOO_MANY_SMALL_FILES),))
    item = decision(plan(request(inputs(health, due=due))), REWRITE)
    assert item.disposition is Disposition.NOT_DUE
    assert "next slot 2026-03-11 02:00 UTC" in item.reasons[0]
    assert any("TOO_MANY_SMALL_FILES" in reason for reason in item.reasons)


def test_a_block_by_the_window_leaves_the_slot_open_until_the_window_opens() -> None:
    due = replace(DUE, in_window=False, next_window_at=SLOT + timedelta(hours=20))
    item = decision(plan(request(inputs(report(works=(work(REWRITE),)), due=due))), REWRITE)
    assert item.disposition is Disposition.BLOCKED
    assert item.slot == SLOT
    assert "opens 2026-03-10 22:00 UTC" in item.reasons[0]


def test_no_engine_is_a_refusal_that_names_every_reason() -> None:
    governor = policy(engine="spark")
    health = report(works=(work(REWRITE),))
    asked = request(inputs(health, governor=governor), unavailable={"spark": "connection spark_default does not exist"})
    item = decision(plan(asked), REWRITE)
    assert item.disposition is Disposition.UNAVAILABLE
    assert item.engine is None
    assert any("spark_default does not exist" in reason for reason in item.reasons)
    assert any("local could run it" in reason for reason in item.reasons)


def test_ignored_settings_of_the_chosen_engine_stand_on_the_item() -> None:
    able = engine().operations[REWRITE].model_copy(update={"refused": {"rewriteJobOrder": "it has none"}})
    governor = policy(onUnsupportedSetting="ignore", rewriteDataFiles={"rewriteJobOrder": "BYTES_ASC"})
    asked = request(
        inputs(report(works=(work(REWRITE),)), governor=governor),
        capabilities={"local": engine(rewrite_data_files=able)},
    )
    item = decision(plan(asked), REWRITE)
    assert item.disposition is Disposition.RUN
    assert item.ignored_settings == ("setting rewriteJobOrder='BYTES_ASC': it has none",)


def test_a_rewrite_of_manifests_follows_one_of_data_files_and_is_dropped_with_it() -> None:
    works = (work(REWRITE, bytes_in=1000), work(Operation.REWRITE_MANIFESTS, False))
    governor = policy(rewriteManifests={})
    asked = replace(request(inputs(report(works=works), governor=governor)), mode=RunMode.OPERATOR)
    follower = decision(plan(asked), Operation.REWRITE_MANIFESTS)
    assert follower.disposition is Disposition.RUN
    assert "follows rewrite_data_files" in follower.reasons[0]
    poor = replace(asked, budgets=Budgets(max_bytes_per_hour=10))
    assert decision(plan(poor), REWRITE).disposition is Disposition.NEVER_FITS
    assert decision(plan(poor), Operation.REWRITE_MANIFESTS).disposition is Disposition.NO_WORK
