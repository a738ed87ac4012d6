"""Gates: let a candidate through or block it, each with its reason and, where known, the next eligible time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_floe.health.report import TableMetrics
from airflow_provider_floe.planning.conditions import check_conditions, texts
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
from airflow_provider_floe.text import count_text, duration_text, later, number_text, time_text


@dataclass(frozen=True, slots=True)
class GateInputs:
    """All that the gates of one (table, operation) look at.

    :ivar conditions: the operation's own, else the policy's; None when the policy has none.
    """

    operation: Operation
    mode: RunMode
    now: datetime
    due: DueState
    history: OperationHistory
    conditions: TriggerConditions | None
    metrics: TableMetrics
    feedback: Feedback
    force: bool = False


def evaluate_gates(inputs: GateInputs) -> tuple[GateDecision, ...]:
    """One decision for every gate, in order. After the first block the rest are not asked."""
    decisions: list[GateDecision] = []
    blocked: GateName | None = None
    forced = False
    for gate, ask in _GATES.items():
        why = _skip(gate, inputs, blocked, forced)
        decision = ask(inputs) if why is None else GateDecision(gate=gate, passed=None, reason=why)
        decisions.append(decision)
        forced = forced or decision.forced
        if decision.passed is False:
            blocked = gate
    return tuple(decisions)


def blocking_gate(gates: tuple[GateDecision, ...]) -> GateDecision | None:
    """The gate that blocks; None when all let it through."""
    return next((gate for gate in gates if gate.passed is False), None)


def _skip(gate: GateName, inputs: GateInputs, blocked: GateName | None, forced: bool) -> str | None:
    if inputs.force:
        return "skipped: the run is forced"
    if blocked is not None:
        return f"not asked: blocked by gate {blocked}"
    if gate in (GateName.SCHEDULE, GateName.WINDOW) and not inputs.mode.looks_at_schedule:
        return f"skipped: {inputs.mode} runs do not look at it"
    if gate in (GateName.INTERVAL, GateName.CONDITIONS) and forced:
        return "skipped: forced by the critical deadline"
    return None


def _schedule(inputs: GateInputs) -> GateDecision:
    due = inputs.due
    next_text = f"; next slot {time_text(due.next_slot)}" if due.next_slot else ""
    if not due.scheduled:
        return _block(GateName.SCHEDULE, "no schedule, or a disabled one: runs on demand only")
    if due.latest_slot is None:
        return _block(GateName.SCHEDULE, f"no slot yet{next_text}", due.next_slot)
    slot = f"slot {time_text(due.latest_slot)}"
    if not due.due:
        consumed = time_text(due.consumed_slot) if due.consumed_slot else "never"
        return _block(GateName.SCHEDULE, f"not due: latest {slot}, consumed up to {consumed}{next_text}", due.next_slot)
    before = f"last consumed {time_text(due.consumed_slot)}" if due.consumed_slot else "none consumed before"
    return _pass(GateName.SCHEDULE, f"due: {slot}, {before}")


def _window(inputs: GateInputs) -> GateDecision:
    due = inputs.due
    if due.in_window:
        return _pass(GateName.WINDOW, f"{time_text(inputs.now)} is inside the allowed times")
    opens = f"; opens {time_text(due.next_window_at)}" if due.next_window_at else ""
    return _block(GateName.WINDOW, f"{time_text(inputs.now)} is outside window or days{opens}", due.next_window_at)


def _deadline(inputs: GateInputs) -> GateDecision:
    conditions, history = inputs.conditions, inputs.history
    if conditions is None or not conditions.critical_pipeline:
        return _pass(GateName.DEADLINE, "not forced: not a critical pipeline")
    if conditions.critical_pipeline_max_delay_minutes is None:
        return _pass(GateName.DEADLINE, "not forced: criticalPipeline has no criticalPipelineMaxDelayMinutes")
    if not history.known:
        return _pass(GateName.DEADLINE, f"not forced: {_UNKNOWN}")
    delay = timedelta(minutes=conditions.critical_pipeline_max_delay_minutes)
    if history.last_run_at is None:
        return _force("it has never run")
    last = f"last run {_ago(inputs.now, history.last_run_at)}, deadline after {duration_text(delay)}"
    at = later(history.last_run_at, delay)
    if inputs.now >= at:
        return _force(last)
    return _pass(GateName.DEADLINE, f"not forced: {last}, at {time_text(at)}")


def _interval(inputs: GateInputs) -> GateDecision:
    conditions, history = inputs.conditions, inputs.history
    minutes = None
    if conditions is not None:
        minutes = conditions.per_operation_min_interval_minutes.get(inputs.operation, conditions.min_interval_minutes)
    if not minutes:
        return _pass(GateName.INTERVAL, "no minimum interval is set")
    if not history.known:
        return _pass(GateName.INTERVAL, _UNKNOWN)
    if history.last_run_at is None:
        return _pass(GateName.INTERVAL, "it has never run")
    interval = timedelta(minutes=minutes)
    over = later(history.last_run_at, interval)
    text = f"last run {_ago(inputs.now, history.last_run_at)}, minimum interval {duration_text(interval)}"
    if inputs.now < over:
        return _block(GateName.INTERVAL, f"{text}: not over until {time_text(over)}", over)
    return _pass(GateName.INTERVAL, text)


def _conditions(inputs: GateInputs) -> GateDecision:
    checks = check_conditions(inputs.conditions, inputs.metrics, inputs.now)
    if inputs.conditions is None or not checks:
        return _pass(GateName.CONDITIONS, "no conditions are set")
    logic = inputs.conditions.trigger_logic
    met, unmet = texts(checks, met=True), texts(checks, met=False)
    passed = bool(met) if logic == "OR" else not unmet
    needed = "any" if logic == "OR" else "all"
    return GateDecision(
        gate=GateName.CONDITIONS,
        passed=passed,
        reason=f"{len(met)} of {count_text(len(checks), 'condition')} met, {needed} needed ({logic})",
        met=met,
        unmet=unmet,
    )


def _backoff(inputs: GateInputs) -> GateDecision:
    history, feedback = inputs.history, inputs.feedback
    if not history.known:
        return _pass(GateName.BACKOFF, _UNKNOWN)
    text = (
        f"{count_text(history.consecutive_failures, 'failure')} in a row, "
        f"backoff from {feedback.backoff_after_failures}"
    )
    if history.consecutive_failures < feedback.backoff_after_failures or history.last_failure_at is None:
        return _pass(GateName.BACKOFF, text)
    hours = timedelta(hours=feedback.backoff_hours)
    until = later(history.last_failure_at, hours)
    text = f"{text}; last failure {_ago(inputs.now, history.last_failure_at)}, backoff lasts {duration_text(hours)}"
    if inputs.now < until:
        return _block(GateName.BACKOFF, f"{text}: until {time_text(until)}", until)
    return _pass(GateName.BACKOFF, text)


def _throttle(inputs: GateInputs) -> GateDecision:
    history, feedback, next_slot = inputs.history, inputs.feedback, inputs.due.next_slot
    if not history.known:
        return _pass(GateName.THROTTLE, _UNKNOWN)
    text = (
        f"{count_text(history.consecutive_zero_changes, 'run')} without change in a row, "
        f"throttle from {feedback.throttle_after_zero_changes}"
    )
    if history.consecutive_zero_changes < feedback.throttle_after_zero_changes:
        return _pass(GateName.THROTTLE, text)
    scheduled = inputs.mode.looks_at_schedule
    if history.last_run_at is not None:
        apart = timedelta(hours=feedback.throttle_min_hours)
        over = later(history.last_run_at, apart)
        if inputs.now < over:
            eligible = max(over, next_slot) if scheduled and next_slot else over
            reason = f"{text}; last run {_ago(inputs.now, history.last_run_at)}, then {duration_text(apart)} apart"
            return _block(GateName.THROTTLE, reason, eligible)
    if scheduled and not history.last_slot_throttled:
        return _block(GateName.THROTTLE, f"{text}: only every second due slot runs", next_slot)
    if scheduled:
        return _pass(GateName.THROTTLE, f"{text}; the slot before was throttled, so this one runs")
    return _pass(GateName.THROTTLE, f"{text}; {number_text(feedback.throttle_min_hours)} h since the last run are over")


_GATES: dict[GateName, Callable[[GateInputs], GateDecision]] = {
    GateName.SCHEDULE: _schedule,
    GateName.WINDOW: _window,
    GateName.DEADLINE: _deadline,
    GateName.INTERVAL: _interval,
    GateName.CONDITIONS: _conditions,
    GateName.BACKOFF: _backoff,
    GateName.THROTTLE: _throttle,
}

_UNKNOWN = "unknown: no history is kept"


def _ago(now: datetime, moment: datetime) -> str:
    return f"{duration_text(now - moment)} ago"


def _pass(gate: GateName, reason: str) -> GateDecision:
    return GateDecision(gate=gate, passed=True, reason=reason)


def _block(gate: GateName, reason: str, next_eligible_at: datetime | None = None) -> GateDecision:
    return GateDecision(gate=gate, passed=False, reason=reason, next_eligible_at=next_eligible_at)


def _force(reason: str) -> GateDecision:
    return GateDecision(gate=GateName.DEADLINE, passed=True, reason=f"forced: {reason}", forced=True)
