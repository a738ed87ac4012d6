"""A plan in words: what is done, why, what is not and why not, for task log, command line and page alike."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.planning.budgets import BYTES
from airflow_provider_floe.planning.estimates import estimate_text
from airflow_provider_floe.planning.model import BudgetUse, Disposition, GateDecision, GateName, Plan, PlanItem
from airflow_provider_floe.text import bytes_text, count_text, number_text, time_text

WIDTH = 120
"""No line is longer than this many columns."""


def explain_plan(plan: Plan) -> list[str]:
    """The whole plan: totals, budgets, failures, then each table by rank with every decision on it."""
    counts = Counter(item.disposition for item in plan.items)
    tables = _by_table(plan)
    flags = "".join(f", {flag}" for flag, on in (("forced", plan.force), ("dry run", plan.dry_run)) if on)
    lines = _wrap(
        f"Plan {plan.id} of {plan.mode} run {plan.run_id}, {time_text(plan.created_at)}{flags}: "
        f"{count_text(len(tables), 'table')}, {count_text(len(plan.items), 'decision')}"
    )
    if counts:
        lines += _wrap(", ".join(f"{kind} {counts[kind]:,}" for kind in Disposition if counts[kind]), 2)
    for budget in plan.budgets:
        if budget.limit:
            lines += _wrap(_budget_text(budget), 2)
    if plan.batches:
        lines += _wrap(f"{count_text(len(plan.batches), 'batch', 'batches')} to execute", 2)
    for item_id, tasks in Counter(plan.helpers).items():
        item = plan.item(item_id)
        lines += _wrap(f"{item.table.ref()} {item.operation}: file groups shared by {tasks + 1} tasks", 2)
    for failure in plan.failures:
        lines += _wrap(f"{failure.subject}: not assessed, {failure.kind}: {failure.message}", 2)
    for table, items in tables:
        lines += _wrap(_table_text(table, items))
        for item in items:
            lines += [f"  {line}" for line in _item_lines(item, WIDTH - 2, item.gates if _runs(item) else ())]
    return lines


def explain_item(item: PlanItem) -> list[str]:
    """Everything that led to one decision: reasons, policy, engine, estimate, gates, terms of the score with points."""
    lines = [*_wrap(str(item.table.ref())), *_item_lines(item, WIDTH, item.gates)]
    if item.policy:
        lines += _labelled("policy", [item.governance or item.policy], WIDTH)
    terms = [f"{term.points:+.1f} {term.name}: {term.reason}" for term in item.score_terms if term.points]
    if terms:
        lines += _labelled("score", [f"{_points(item)}, the sum of", *terms], WIDTH)
    return lines


def plan_table_rows(plan: Plan) -> list[dict[str, str]]:
    """One row per decision, for a compact table: table, operation, decision, why, score, rank, estimate."""
    return [
        {
            "table": str(item.table.ref()),
            "operation": item.operation.value,
            "decision": item.disposition.value,
            "why": item.reasons[0] if item.reasons else "",
            "score": _points(item) if item.policy else "",
            "rank": str(item.rank or ""),
            "estimate": estimate_text(item.operation, item.estimate) if _has_estimate(item) else "",
        }
        for _, items in _by_table(plan)
        for item in items
    ]


def _by_table(plan: Plan) -> list[tuple[TableId, list[PlanItem]]]:
    """Tables by rank; those that nothing is to run on come last, by name."""
    groups: dict[TableId, list[PlanItem]] = {}
    for item in plan.items:
        groups.setdefault(item.table, []).append(item)
    return sorted(
        groups.items(), key=lambda group: (_rank(group[1]) is None, _rank(group[1]) or 0, str(group[0].ref()))
    )


def _rank(items: Iterable[PlanItem]) -> int | None:
    return min((item.rank for item in items if item.rank is not None), default=None)


def _table_text(table: TableId, items: list[PlanItem]) -> str:
    """The table with its score, and the terms of it that show in the sum: they are the same for all its operations."""
    governed = next((item for item in items if item.policy), None)
    if governed is None:
        return str(table.ref())
    rank = _rank(items)
    text = f"{table.ref()}: score {_points(governed)}" + (f", rank {rank}" if rank is not None else "")
    terms = [f"{term.points:+.1f} {term.name}" for term in governed.score_terms if round(term.points, 1)]
    return f"{text} ({', '.join(terms)})" if terms else text


def _budget_text(budget: BudgetUse) -> str:
    show = bytes_text if budget.name == BYTES else number_text
    available = budget.limit if budget.available is None else budget.available
    left = "" if available == budget.limit else f", of which {show(available)} were left"
    return f"budget {budget.name}: this plan takes {show(budget.used)} of {show(budget.limit)}{left}"


def _runs(item: PlanItem) -> bool:
    return item.disposition is Disposition.RUN


def _has_estimate(item: PlanItem) -> bool:
    return item.rank is not None


def _points(item: PlanItem) -> str:
    return number_text(round(item.score, 1))


def _item_lines(item: PlanItem, width: int, gates: Iterable[GateDecision]) -> list[str]:
    head = f"+ {item.operation}: run on {item.engine}" if _runs(item) else f"- {item.operation}: {item.disposition}"
    lines = _wrap(head, width=width)
    reasons = [reason.removeprefix(f"{item.disposition}: ") for reason in item.reasons]
    lines += _labelled("why" if _runs(item) else "why not", reasons, width)
    if _has_estimate(item):
        lines += _labelled("estimate", [estimate_text(item.operation, item.estimate)], width)
    if item.engine_reason:
        lines += _labelled("engine", [f"{item.engine or 'none'}: {item.engine_reason}"], width)
    lines += _labelled("ignored", item.ignored_settings, width)
    lines += _labelled("gates", [_gate_text(gate) for gate in gates], width)
    return lines


def _gate_text(gate: GateDecision) -> str:
    if gate.passed is None:
        return f"{gate.gate}: {gate.reason}"
    verb = "" if gate.gate is GateName.DEADLINE else " passed" if gate.passed else " blocked"
    parts = [f"{gate.gate}{verb}: {gate.reason}"]
    parts += [f"met {text}" for text in gate.met]
    parts += [f"not met {text}" for text in gate.unmet]
    if gate.next_eligible_at is not None:
        parts.append(f"next eligible {time_text(gate.next_eligible_at)}")
    return "; ".join(parts)


def _labelled(label: str, texts: Iterable[str], width: int) -> list[str]:
    lines: list[str] = []
    for text in texts:
        lines += _wrap(text, 13, width, first=f"    {label:<9}")
        label = ""
    return lines


def _wrap(text: str, indent: int = 0, width: int = WIDTH, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=" " * indent if first is None else first,
        subsequent_indent=" " * (indent if first is not None else indent + 2),
        break_long_words=True,
        break_on_hyphens=False,
    )
