"""The debt score: terms that add up, with the original's points by default."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_builders import NOW, histories, issue, metrics, report

from airflow_provider_floe.health.report import Issue, IssueType, Severity, TableMetrics
from airflow_provider_floe.planning.model import OperationHistory, ScoreWeights
from airflow_provider_floe.planning.score import debt_score
from airflow_provider_floe.tables import Operation

random_history = st.dictionaries(st.sampled_from(list(Operation)), histories())
random_issues = st.lists(
    st.builds(issue, st.sampled_from(list(IssueType)), st.sampled_from(list(Severity))), max_size=15
).map(tuple)


def test_the_defaults_are_the_originals_points() -> None:
    health = report(
        issues=(
            issue(IssueType.TOO_MANY_SMALL_FILES, Severity.CRITICAL),
            issue(IssueType.OLD_SNAPSHOTS, Severity.WARNING),
            issue(IssueType.PARTITION_SKEW, Severity.INFO),
        ),
        metrics=TableMetrics(newest_snapshot_at=NOW - timedelta(days=10)),
    )
    history = {
        Operation.REWRITE_DATA_FILES: OperationHistory(runs=3, failures=1, consecutive_failures=1),
        Operation.EXPIRE_SNAPSHOTS: OperationHistory(runs=1),
    }
    score = debt_score(health, history, NOW, ScoreWeights())
    assert {term.name: term.points for term in score.terms} == {
        "issue TOO_MANY_SMALL_FILES": 100,
        "issue OLD_SNAPSHOTS": 50,
        "issue PARTITION_SKEW": 10,
        "days since newest snapshot": 5,
        "failure rate": 25,
        "consecutive failures": 20,
    }
    assert score.points == 210
    reasons = [term.reason for term in score.terms]
    assert "10 days at 0.50 points each" in reasons
    assert "1 of 4 runs failed, 25 %" in reasons
    assert "rewrite_data_files: 1 in a row at 20 points each" in reasons


@given(random_issues, metrics(), random_history)
def test_the_terms_add_up_to_the_score_within_its_limits(
    issues: tuple[Issue, ...], seen: TableMetrics, history: dict[Operation, OperationHistory]
) -> None:
    score = debt_score(report(issues=issues, metrics=seen), history, NOW, ScoreWeights())
    assert 0 <= score.points <= 1000
    assert score.points == pytest.approx(min(1000, sum(term.points for term in score.terms)))
    assert all(term.points >= 0 and term.reason for term in score.terms)


@given(random_issues, metrics(), random_history, st.sampled_from(list(IssueType)), st.sampled_from(list(Severity)))
def test_one_more_issue_never_lowers_the_score(
    issues: tuple[Issue, ...],
    seen: TableMetrics,
    history: dict[Operation, OperationHistory],
    kind: IssueType,
    severity: Severity,
) -> None:
    healthier = report(issues=issues, metrics=seen)
    worse = report(issues=(*issues, issue(kind, severity)), metrics=seen)
    weights = ScoreWeights()
    assert debt_score(worse, history, NOW, weights).points >= debt_score(healthier, history, NOW, weights).points


def test_unknown_history_adds_nothing_and_says_so() -> None:
    score = debt_score(report(), {Operation.EXPIRE_SNAPSHOTS: OperationHistory(known=False)}, NOW, ScoreWeights())
    assert score.points == 0
    assert [term.reason for term in score.terms][-2:] == ["unknown: no history is kept"] * 2


def test_weights_are_settings() -> None:
    health = report(issues=(issue(IssueType.OLD_SNAPSHOTS),))
    assert debt_score(health, {}, NOW, ScoreWeights(warning=7)).points == 7
    assert debt_score(health, {}, NOW, ScoreWeights(warning=7, maximum=5)).points == 5
    assert debt_score(health, {}, NOW, ScoreWeights(warning=-7)).points == 0
