"""The debt score of a table: how badly it needs work, as terms that add up and can be shown.

A table that keeps failing ranks higher, as in the original; backoff is what keeps it from eating the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_floe.health.report import HealthReport, Severity
from airflow_provider_floe.planning.model import OperationHistory, ScoreTerm, ScoreWeights
from airflow_provider_floe.tables import Operation
from airflow_provider_floe.text import count_text, number_text


@dataclass(frozen=True, slots=True)
class Score:
    """The points of a table.

    :ivar points: sum of the terms, clamped to 0..``ScoreWeights.maximum``.
    """

    points: float
    terms: tuple[ScoreTerm, ...]


def debt_score(
    report: HealthReport,
    history: Mapping[Operation, OperationHistory],
    now: datetime,
    weights: ScoreWeights,
) -> Score:
    """Add up the terms of one table, over all its operations."""
    by_severity = {
        Severity.CRITICAL: weights.critical,
        Severity.WARNING: weights.warning,
        Severity.INFO: weights.info,
    }
    terms = [
        ScoreTerm(
            name=f"issue {issue.type}",
            points=by_severity[issue.severity],
            reason=f"{issue.severity}: {issue.message}",
        )
        for issue in report.issues
    ]
    terms.append(_staleness(report, now, weights))
    terms += _failures(history, weights)
    total = math.fsum(term.points for term in terms)
    return Score(points=min(max(total, 0.0), weights.maximum), terms=tuple(terms))


def _staleness(report: HealthReport, now: datetime, weights: ScoreWeights) -> ScoreTerm:
    name = "days since newest snapshot"
    newest = report.metrics.newest_snapshot_at
    if newest is None:
        return ScoreTerm(name=name, points=0.0, reason="the table has no snapshot")
    days = max(0.0, (now - newest) / timedelta(days=1))
    each = weights.per_day_since_newest_snapshot
    return ScoreTerm(
        name=name, points=days * each, reason=f"{number_text(days)} days at {number_text(each)} points each"
    )


def _failures(history: Mapping[Operation, OperationHistory], weights: ScoreWeights) -> list[ScoreTerm]:
    known = {operation: kept for operation, kept in history.items() if kept.known}
    if not known:
        unknown = "unknown: no history is kept"
        return [
            ScoreTerm(name="failure rate", points=0.0, reason=unknown),
            ScoreTerm(name="consecutive failures", points=0.0, reason=unknown),
        ]
    runs = sum(kept.runs for kept in known.values())
    failures = sum(kept.failures for kept in known.values())
    percent = min(100.0, 100.0 * failures / runs) if runs else 0.0
    streak = max(kept.consecutive_failures for kept in known.values())
    worst = next(op for op in Operation if op in known and known[op].consecutive_failures == streak)
    each = weights.per_consecutive_failure
    return [
        ScoreTerm(
            name="failure rate",
            points=percent * weights.failure_percent,
            reason=f"{failures:,} of {count_text(runs, 'run')} failed, {number_text(percent)} %",
        ),
        ScoreTerm(
            name="consecutive failures",
            points=streak * each,
            reason=f"{worst}: {streak:,} in a row at {number_text(each)} points each" if streak else "none in a row",
        ),
    ]
