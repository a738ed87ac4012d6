"""Selection: what makes an operation a candidate, and what keeps it from being one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_builders import NOW, histories, issue, metrics, policies, policy, report, work, works

from airflow_provider_floe.health.report import IssueType, OperationWork, Severity, TableMetrics
from airflow_provider_floe.planning.candidates import Candidacy, candidacy
from airflow_provider_floe.planning.model import Disposition, OperationHistory
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.tables import RUN_ORDER, Operation

REWRITE, POSITION_DELETES, MANIFESTS, _, EXPIRE, ORPHANS = RUN_ORDER

ASKS_FOR: dict[IssueType, set[Operation]] = {
    IssueType.TOO_MANY_SMALL_FILES: {REWRITE},
    IssueType.TOO_MANY_LARGE_FILES: {REWRITE},
    IssueType.HIGH_FILE_COUNT: {REWRITE},
    IssueType.TOO_MANY_DELETE_FILES: {REWRITE, POSITION_DELETES},
    IssueType.HIGH_DELETE_FILE_RATIO: {REWRITE, POSITION_DELETES},
    IssueType.TOO_MANY_SNAPSHOTS: {EXPIRE},
    IssueType.OLD_SNAPSHOTS: {EXPIRE},
    IssueType.TOO_MANY_MANIFESTS: {MANIFESTS},
    IssueType.LARGE_MANIFEST_LIST: {MANIFESTS},
    IssueType.TOO_MANY_PARTITIONS: set(),
    IssueType.PARTITION_SKEW: set(),
    IssueType.TABLE_EMPTY: set(),
    IssueType.STALE_METADATA: set(),
}
CLEANED = OperationHistory(runs=1, last_success_at=NOW - timedelta(days=1), last_run_at=NOW - timedelta(days=1))


def decide(
    operation: Operation,
    *,
    governor: Policy | None = None,
    history: dict[Operation, OperationHistory] | None = None,
    named: bool = False,
    **health: Any,
) -> Candidacy:
    return candidacy(
        operation,
        policy=governor or policy(),
        report=report(**health),
        history=history if history is not None else {ORPHANS: CLEANED},
        now=NOW,
        named=named,
        orphan_interval_days=7,
    )


@pytest.mark.parametrize("kind", list(IssueType))
@pytest.mark.parametrize("severity", list(Severity))
def test_an_issue_asks_for_its_operation_from_warning_on_and_for_no_other(kind: IssueType, severity: Severity) -> None:
    for operation in Operation:
        found = decide(operation, issues=(issue(kind, severity),))
        asked = operation in ASKS_FOR[kind] and severity is not Severity.INFO
        assert found.disposition is (None if asked else Disposition.NO_WORK)
        assert any(kind in reason and "12" in reason for reason in found.reasons) is asked


@pytest.mark.parametrize("operation", list(Operation))
def test_settings_alone_find_work(operation: Operation) -> None:
    found = decide(operation, works=(work(operation, summary="9 snapshots are past retention"),))
    assert found == Candidacy(None, ("work found: 9 snapshots are past retention",))


@pytest.mark.parametrize("operation", list(Operation))
def test_naming_an_operation_makes_it_a_candidate_unless_there_is_no_work(operation: Operation) -> None:
    assert decide(operation, named=True, works=(work(operation, None),)).disposition is None
    assert decide(operation, named=True, works=(work(operation, False),)).disposition is Disposition.NO_WORK


def test_an_issue_without_work_is_no_work_and_says_both() -> None:
    nothing = work(REWRITE, False, summary="90 small files in 90 partitions, one each: none can be merged")
    found = decide(REWRITE, issues=(issue(IssueType.TOO_MANY_SMALL_FILES),), works=(nothing,))
    assert found.disposition is Disposition.NO_WORK
    assert found.reasons[0] == "90 small files in 90 partitions, one each: none can be merged"
    assert found.reasons[1].startswith("although issue TOO_MANY_SMALL_FILES WARNING")


def test_a_refusal_stands_above_all() -> None:
    refused = work(EXPIRE, True, refusal="gc.enabled=false")
    found = decide(EXPIRE, named=True, works=(refused,))
    assert found == Candidacy(Disposition.REFUSED, ("must not run: gc.enabled=false",))


def test_a_policy_condition_speaks_for_the_operation_of_its_metric() -> None:
    governor = policy(triggerConditions={"snapshotCountAbove": 3, "partitionSkewAbove": 2})
    seen = TableMetrics(snapshot_count=3, partition_skew=9)
    assert decide(EXPIRE, governor=governor, metrics=seen).reasons[0] == (
        "condition met: snapshotCountAbove: 3, threshold 3"
    )
    for other in (REWRITE, MANIFESTS, ORPHANS):
        assert decide(other, governor=governor, metrics=seen).disposition is Disposition.NO_WORK


def test_a_condition_in_the_operations_own_settings_speaks_for_it_whatever_its_metric() -> None:
    governor = policy(rewriteDataFiles={"triggerConditions": {"partitionSkewAbove": 2}})
    assert decide(REWRITE, governor=governor, metrics=TableMetrics(partition_skew=9)).disposition is None
    assert decide(REWRITE, governor=governor, metrics=TableMetrics()).disposition is Disposition.NO_WORK


def test_orphans_wait_for_the_interval_since_the_last_cleanup() -> None:
    found = decide(ORPHANS)
    assert found.disposition is Disposition.NO_WORK
    assert any("last cleanup 1 d ago" in reason and "after 7 days" in reason for reason in found.reasons)
    old = replace(CLEANED, last_success_at=NOW - timedelta(days=7))
    assert decide(ORPHANS, history={ORPHANS: old}).disposition is None


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ({}, "no history is kept"),
        ({ORPHANS: OperationHistory(known=False)}, "no history is kept"),
        ({ORPHANS: OperationHistory()}, "no successful cleanup"),
        ({ORPHANS: replace(CLEANED, failures_since_success=2)}, "2 failed or interrupted runs"),
        (
            {ORPHANS: CLEANED, REWRITE: OperationHistory(last_failure_at=NOW - timedelta(hours=1))},
            "rewrite_data_files failed at 2026-03-10 01:30 UTC, after the last cleanup",
        ),
    ],
)
def test_orphans_are_looked_for_when_there_may_be_some(history: dict[Operation, OperationHistory], reason: str) -> None:
    found = decide(ORPHANS, history=history)
    assert found.disposition is None
    assert reason in found.reasons[0]


def test_a_failure_before_the_last_cleanup_is_no_reason() -> None:
    before = OperationHistory(last_failure_at=NOW - timedelta(days=2))
    assert decide(ORPHANS, history={ORPHANS: CLEANED, REWRITE: before}).disposition is Disposition.NO_WORK


def test_a_listing_beats_the_clock_for_orphans() -> None:
    none_found = work(ORPHANS, False, summary="listed 400 files, all referenced or young")
    assert decide(ORPHANS, history={}, works=(none_found,)).disposition is Disposition.NO_WORK
    some = work(ORPHANS, True, summary="12 orphans, 3 MiB")
    assert decide(ORPHANS, works=(some,)).reasons == ("work found: 12 orphans, 3 MiB",)


@given(
    policies(),
    st.sampled_from(list(Operation)).flatmap(lambda operation: st.tuples(st.just(operation), works(operation))),
    metrics(),
    st.dictionaries(st.sampled_from(list(Operation)), histories()),
    st.booleans(),
)
def test_found_decides_whenever_it_is_known(
    governor: Policy,
    asked: tuple[Operation, OperationWork],
    seen: TableMetrics,
    history: dict[Operation, OperationHistory],
    named: bool,
) -> None:
    operation, found_work = asked
    found = decide(operation, governor=governor, works=(found_work,), metrics=seen, history=history, named=named)
    assert all(found.reasons)
    if found_work.refusal is not None:
        assert found.disposition is Disposition.REFUSED
    elif found_work.found is not None:
        assert found.disposition is (None if found_work.found else Disposition.NO_WORK)
    elif named:
        assert found.disposition is None
