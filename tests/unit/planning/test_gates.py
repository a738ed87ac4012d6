"""Gates: order, skipping, and the arithmetic of each."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_builders import DUE, NOW, SLOT, conditions, dues, histories, metrics

from airflow_provider_floe.health.report import TableMetrics
from airflow_provider_floe.planning.gates import GateInputs, blocking_gate, evaluate_gates
from airflow_provider_floe.planning.model import (
    DueState,
    Feedback,
    GateDecision,
    GateName,
    OperationHistory,
    RunMode,
)
from airflow_provider_floe.policies.model import TriggerConditions
from airflow_provider_floe.tables import Operation

ORDER = [
    GateName.SCHEDULE,
    GateName.WINDOW,
    GateName.DEADLINE,
    GateName.INTERVAL,
    GateName.CONDITIONS,
    GateName.BACKOFF,
    GateName.THROTTLE,
]


def gate_inputs(
    *,
    set_conditions: dict[str, Any] | None = None,
    history: OperationHistory | None = None,
    mode: RunMode = RunMode.SCHEDULED,
    due: DueState = DUE,
    seen: TableMetrics | None = None,
    force: bool = False,
    now: datetime = NOW,
) -> GateInputs:
    return GateInputs(
        operation=Operation.REWRITE_DATA_FILES,
        mode=mode,
        now=now,
        due=due,
        history=history or OperationHistory(),
        conditions=None if set_conditions is None else TriggerConditions.model_validate(set_conditions),
        metrics=seen or TableMetrics(),
        feedback=Feedback(),
        force=force,
    )


def ask(gate: GateName, asked: GateInputs) -> GateDecision:
    return next(decision for decision in evaluate_gates(asked) if decision.gate is gate)


def ran(minutes_ago: float, **fields: Any) -> OperationHistory:
    return OperationHistory(runs=1, last_run_at=NOW - timedelta(minutes=minutes_ago), **fields)


random_inputs = st.builds(
    gate_inputs,
    set_conditions=st.none() | conditions,
    history=histories(),
    mode=st.sampled_from(list(RunMode)),
    due=dues(),
    seen=metrics(),
    force=st.booleans(),
)


@given(random_inputs)
def test_gates_stand_in_order_and_none_is_asked_after_a_block(asked: GateInputs) -> None:
    decisions = evaluate_gates(asked)
    assert [decision.gate for decision in decisions] == ORDER
    assert all(decision.reason for decision in decisions)
    block = blocking_gate(decisions)
    if block is not None:
        rest = decisions[decisions.index(block) + 1 :]
        assert {decision.passed for decision in rest} <= {None}
        assert all(decision.reason == f"not asked: blocked by gate {block.gate}" for decision in rest)


@given(random_inputs)
def test_a_block_never_names_an_eligible_time_that_is_already_over(asked: GateInputs) -> None:
    block = blocking_gate(evaluate_gates(asked))
    if block is not None and block.next_eligible_at is not None:
        assert block.next_eligible_at > asked.now


@given(random_inputs)
def test_force_skips_every_gate(asked: GateInputs) -> None:
    for decision in evaluate_gates(replace(asked, force=True)):
        assert (decision.passed, decision.reason) == (None, "skipped: the run is forced")


@given(random_inputs)
def test_only_scheduled_runs_look_at_schedule_and_window(asked: GateInputs) -> None:
    for gate in (GateName.SCHEDULE, GateName.WINDOW):
        for mode in set(RunMode) - {RunMode.SCHEDULED}:
            decision = ask(gate, replace(asked, mode=mode, force=False))
            assert decision.passed is None
            assert decision.reason == f"skipped: {mode} runs do not look at it"


@given(random_inputs)
def test_unknown_history_blocks_nothing_by_itself(asked: GateInputs) -> None:
    unknown = replace(asked, history=OperationHistory(known=False))
    block = blocking_gate(evaluate_gates(unknown))
    assert block is None or block.gate in (GateName.SCHEDULE, GateName.WINDOW, GateName.CONDITIONS)


@given(random_inputs)
def test_a_forced_deadline_skips_interval_and_conditions_and_nothing_else(asked: GateInputs) -> None:
    decisions = {decision.gate: decision for decision in evaluate_gates(asked)}
    if not decisions[GateName.DEADLINE].forced:
        return
    plain = replace(asked, conditions=None)
    without = {decision.gate: decision for decision in evaluate_gates(plain)}
    for gate in (GateName.INTERVAL, GateName.CONDITIONS):
        assert decisions[gate].reason == "skipped: forced by the critical deadline"
    for gate in (GateName.SCHEDULE, GateName.WINDOW, GateName.BACKOFF, GateName.THROTTLE):
        assert decisions[gate] == without[gate]


@given(random_inputs)
def test_conditions_pass_as_their_logic_says(asked: GateInputs) -> None:
    decision = ask(GateName.CONDITIONS, asked)
    if decision.passed is None:
        return
    if not decision.met and not decision.unmet:
        assert decision.passed
    elif asked.conditions is not None and asked.conditions.trigger_logic == "AND":
        assert decision.passed is (not decision.unmet)
    else:
        assert decision.passed is bool(decision.met)


@pytest.mark.parametrize(("value", "met"), [(30.0, True), (29.99, False), (None, False)])
def test_a_condition_is_met_from_its_threshold_on_and_not_when_unknown(value: float | None, met: bool) -> None:
    decision = ask(
        GateName.CONDITIONS,
        gate_inputs(set_conditions={"smallFilePercentageAbove": 30}, seen=TableMetrics(small_file_percentage=value)),
    )
    shown = "unknown" if value is None else f"{value:g} %"
    assert decision.passed is met
    assert (decision.met if met else decision.unmet) == (f"smallFilePercentageAbove: {shown}, threshold 30 %",)


def test_every_threshold_of_the_document_is_held_against_its_metric() -> None:
    thresholds = {
        "smallFilePercentageAbove": 1,
        "smallFileCountAbove": 1,
        "totalFileSizeAboveBytes": 1,
        "deleteFileCountAbove": 1,
        "deleteFileRatioAbove": 1,
        "snapshotCountAbove": 1,
        "snapshotAgeAboveDays": 1,
        "partitionCountAbove": 1,
        "partitionSkewAbove": 1,
        "manifestSizeAboveBytes": 1,
    }
    seen = TableMetrics(
        small_file_percentage=1,
        small_file_count=1,
        total_data_size_bytes=1,
        delete_file_count=1,
        delete_file_ratio=1,
        snapshot_count=1,
        oldest_snapshot_at=NOW - timedelta(days=1),
        partition_count=1,
        partition_skew=1,
        total_manifest_size_bytes=1,
    )
    decision = ask(GateName.CONDITIONS, gate_inputs(set_conditions={**thresholds, "triggerLogic": "AND"}, seen=seen))
    assert decision.passed
    assert [text.partition(":")[0] for text in decision.met] == list(thresholds)
    none_met = ask(GateName.CONDITIONS, gate_inputs(set_conditions=thresholds, seen=TableMetrics()))
    assert not none_met.passed
    assert len(none_met.unmet) == len(thresholds)


def test_an_operations_own_minimum_interval_wins_even_when_it_is_zero() -> None:
    both = {"minIntervalMinutes": 60, "perOperationMinIntervalMinutes": {"rewriteDataFiles": 10}}
    assert ask(GateName.INTERVAL, gate_inputs(set_conditions=both, history=ran(10))).passed
    blocked = ask(GateName.INTERVAL, gate_inputs(set_conditions=both, history=ran(9)))
    assert blocked.passed is False
    assert blocked.next_eligible_at == NOW + timedelta(minutes=1)
    none = {"minIntervalMinutes": 60, "perOperationMinIntervalMinutes": {"rewriteDataFiles": 0}}
    assert ask(GateName.INTERVAL, gate_inputs(set_conditions=none, history=ran(1))).passed
    other = {"minIntervalMinutes": 60, "perOperationMinIntervalMinutes": {"expireSnapshots": 1}}
    assert ask(GateName.INTERVAL, gate_inputs(set_conditions=other, history=ran(59))).passed is False


@pytest.mark.parametrize(
    ("history", "forced"),
    [
        (ran(60), True),
        (ran(59), False),
        (OperationHistory(), True),
        (OperationHistory(known=False), False),
    ],
)
def test_the_critical_deadline_forces_once_the_delay_is_over(history: OperationHistory, forced: bool) -> None:
    critical = {
        "criticalPipeline": True,
        "criticalPipelineMaxDelayMinutes": 60,
        "minIntervalMinutes": 600,
        "snapshotCountAbove": 10,
    }
    decisions = evaluate_gates(gate_inputs(set_conditions=critical, history=history))
    assert ask(GateName.DEADLINE, gate_inputs(set_conditions=critical, history=history)).forced is forced
    assert (blocking_gate(decisions) is None) is forced


def test_a_deadline_does_not_force_through_the_window() -> None:
    closed = replace(DUE, in_window=False, next_window_at=NOW + timedelta(hours=1))
    critical = {"criticalPipeline": True, "criticalPipelineMaxDelayMinutes": 1}
    block = blocking_gate(evaluate_gates(gate_inputs(set_conditions=critical, history=ran(60), due=closed)))
    assert block is not None
    assert (block.gate, block.next_eligible_at) == (GateName.WINDOW, closed.next_window_at)


@pytest.mark.parametrize(
    ("failures", "hours_ago", "passed"), [(2, 0.1, True), (3, 5.9, False), (3, 6, True), (40, 5.9, False)]
)
def test_backoff_blocks_after_failures_in_a_row_until_its_hours_are_over(
    failures: int, hours_ago: float, passed: bool
) -> None:
    failed_at = NOW - timedelta(hours=hours_ago)
    history = OperationHistory(consecutive_failures=failures, last_failure_at=failed_at)
    decision = ask(GateName.BACKOFF, gate_inputs(history=history))
    assert decision.passed is passed
    assert decision.next_eligible_at == (None if passed else failed_at + timedelta(hours=6))


@pytest.mark.parametrize(
    ("zero_changes", "throttled", "hours_ago", "mode", "passed"),
    [
        (4, False, 1, RunMode.SCHEDULED, True),
        (5, False, 24, RunMode.SCHEDULED, False),
        (5, True, 24, RunMode.SCHEDULED, True),
        (5, True, 5, RunMode.SCHEDULED, False),
        (5, False, 24, RunMode.ASSET, True),
        (5, False, 5, RunMode.ASSET, False),
    ],
)
def test_throttle_lets_every_second_slot_through_and_keeps_runs_apart(
    zero_changes: int, throttled: bool, hours_ago: float, mode: RunMode, passed: bool
) -> None:
    history = ran(hours_ago * 60, consecutive_zero_changes=zero_changes, last_slot_throttled=throttled)
    decision = ask(GateName.THROTTLE, gate_inputs(history=history, mode=mode))
    assert decision.passed is passed
    if not passed and mode is RunMode.SCHEDULED:
        assert decision.next_eligible_at == DUE.next_slot


@pytest.mark.parametrize(
    ("due", "passed", "reason"),
    [
        (DUE, True, "due: slot 2026-03-10 02:00 UTC, last consumed 2026-03-09 02:00 UTC"),
        (replace(DUE, consumed_slot=None), True, "due: slot 2026-03-10 02:00 UTC, none consumed before"),
        (
            replace(DUE, consumed_slot=SLOT),
            False,
            "not due: latest slot 2026-03-10 02:00 UTC, consumed up to 2026-03-10 02:00 UTC; "
            "next slot 2026-03-11 02:00 UTC",
        ),
        (replace(DUE, latest_slot=None), False, "no slot yet; next slot 2026-03-11 02:00 UTC"),
        (DueState(scheduled=False), False, "no schedule, or a disabled one: runs on demand only"),
    ],
)
def test_the_schedule_gate_compares_the_latest_slot_with_the_consumed_one(
    due: DueState, passed: bool, reason: str
) -> None:
    decision = ask(GateName.SCHEDULE, gate_inputs(due=due))
    assert (decision.passed, decision.reason) == (passed, reason)


def test_an_absurdly_long_interval_blocks_instead_of_failing() -> None:
    block = ask(GateName.INTERVAL, gate_inputs(set_conditions={"minIntervalMinutes": 10**12}, history=ran(1)))
    assert block.passed is False
