from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.health.issues import find_issues
from airflow_provider_floe.health.report import IssueType, Severity, TableMetrics
from airflow_provider_floe.policies.model import HealthThresholds

NOW = datetime(2026, 6, 1, tzinfo=UTC)
THRESHOLDS = HealthThresholds()


def healthy(**changes: Any) -> TableMetrics:
    fine: dict[str, Any] = {
        "snapshot_count": 3,
        "oldest_snapshot_at": NOW - timedelta(days=2),
        "newest_snapshot_at": NOW - timedelta(hours=1),
        "data_file_count": 100,
        "small_file_count": 0,
        "small_file_percentage": 0.0,
        "large_file_count": 0,
        "large_file_percentage": 0.0,
        "delete_file_count": 0,
        "delete_file_ratio": 0.0,
        "partition_count": 10,
        "partition_skew": 1.0,
        "manifest_count": 5,
        "total_manifest_size_bytes": 10_000,
    }
    return TableMetrics(**{**fine, **changes})


def issues(metrics: TableMetrics, thresholds: HealthThresholds = THRESHOLDS) -> dict[IssueType, Any]:
    return {issue.type: issue for issue in find_issues(metrics, thresholds, NOW)}


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


CASES: list[tuple[IssueType, dict[str, Any], dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    # type, just fine, warning, critical, words of the critical message
    (
        IssueType.TOO_MANY_SMALL_FILES,
        {"small_file_count": 19, "small_file_percentage": 19.9},
        {"small_file_count": 20, "small_file_percentage": 20.0},
        {"small_file_count": 50, "small_file_percentage": 50.0},
        ("50 of 100 data files (50 %)", "100 MiB", "50 %"),
    ),
    (
        IssueType.TOO_MANY_LARGE_FILES,
        {"large_file_count": 19, "large_file_percentage": 19.9},
        {"large_file_count": 20, "large_file_percentage": 20.0},
        {"large_file_count": 50, "large_file_percentage": 50.0},
        ("50 of 100 data files (50 %)", "1 GiB"),
    ),
    (
        IssueType.HIGH_FILE_COUNT,
        {"data_file_count": 9_999},
        {"data_file_count": 10_000},
        {"data_file_count": 50_000},
        ("50,000 data files",),
    ),
    (
        IssueType.TOO_MANY_SNAPSHOTS,
        {"snapshot_count": 99},
        {"snapshot_count": 100},
        {"snapshot_count": 500},
        ("500 snapshots",),
    ),
    (
        IssueType.OLD_SNAPSHOTS,
        {"oldest_snapshot_at": days_ago(6.9)},
        {"oldest_snapshot_at": days_ago(7)},
        {"oldest_snapshot_at": days_ago(30)},
        ("30 days",),
    ),
    (
        IssueType.TOO_MANY_DELETE_FILES,
        {"delete_file_count": 99},
        {"delete_file_count": 100},
        {"delete_file_count": 500, "position_delete_file_count": 480, "equality_delete_file_count": 20},
        ("500 delete files", "480 position", "20 equality"),
    ),
    (
        IssueType.HIGH_DELETE_FILE_RATIO,
        {"delete_file_ratio": 0.09, "delete_file_count": 9},
        {"delete_file_ratio": 0.1, "delete_file_count": 10},
        {"delete_file_ratio": 0.25, "delete_file_count": 25},
        ("0.25 delete files for each data file", "25 to 100"),
    ),
    (
        IssueType.TOO_MANY_MANIFESTS,
        {"manifest_count": 99},
        {"manifest_count": 100},
        {"manifest_count": 500},
        ("500 manifests",),
    ),
    (
        IssueType.LARGE_MANIFEST_LIST,
        {"total_manifest_size_bytes": 100 * 1024**2 - 1},
        {"total_manifest_size_bytes": 100 * 1024**2},
        {"total_manifest_size_bytes": 500 * 1024**2},
        ("500 MiB",),
    ),
    (
        IssueType.TOO_MANY_PARTITIONS,
        {"partition_count": 4_999},
        {"partition_count": 5_000},
        {"partition_count": 10_000},
        ("10,000 partitions",),
    ),
    (
        IssueType.PARTITION_SKEW,
        {"partition_skew": 2.9},
        {"partition_skew": 3.0},
        {"partition_skew": 10.0},
        ("10 times",),
    ),
    (
        IssueType.STALE_METADATA,
        {"newest_snapshot_at": days_ago(6.9), "oldest_snapshot_at": days_ago(6.9)},
        {"newest_snapshot_at": days_ago(7)},
        {"newest_snapshot_at": days_ago(30)},
        ("30 days",),
    ),
]


@pytest.mark.parametrize(("kind", "fine", "warning", "critical", "words"), CASES, ids=[case[0].value for case in CASES])
def test_each_issue_starts_at_its_thresholds(
    kind: IssueType, fine: dict[str, Any], warning: dict[str, Any], critical: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert kind not in issues(healthy(**fine))
    assert issues(healthy(**warning))[kind].severity is Severity.WARNING
    found = issues(healthy(**critical))[kind]
    assert found.severity is Severity.CRITICAL
    assert found.value >= found.threshold
    for word in words:
        assert word in found.message


def test_every_type_but_empty_has_a_case() -> None:
    assert {case[0] for case in CASES} | {IssueType.TABLE_EMPTY} == set(IssueType)


def test_a_healthy_table_has_no_issue() -> None:
    assert find_issues(healthy(), THRESHOLDS, NOW) == ()


def test_what_is_not_known_is_no_issue() -> None:
    assert find_issues(TableMetrics(snapshot_count=2), THRESHOLDS, NOW) == ()


def test_an_empty_table_still_shows_its_other_issues() -> None:
    found = issues(healthy(data_file_count=0, snapshot_count=500, manifest_count=100))
    assert found[IssueType.TABLE_EMPTY].severity is Severity.INFO
    assert found[IssueType.TABLE_EMPTY].threshold is None
    assert found[IssueType.TOO_MANY_SNAPSHOTS].severity is Severity.CRITICAL
    assert found[IssueType.TOO_MANY_MANIFESTS].severity is Severity.WARNING


def test_the_only_snapshot_is_stale_but_not_old() -> None:
    found = issues(healthy(snapshot_count=1, oldest_snapshot_at=days_ago(90), newest_snapshot_at=days_ago(90)))
    assert IssueType.OLD_SNAPSHOTS not in found
    assert found[IssueType.STALE_METADATA].severity is Severity.CRITICAL


def test_a_single_small_file_cannot_be_merged_and_is_no_issue() -> None:
    metrics = healthy(data_file_count=1, small_file_count=1, small_file_percentage=100.0)
    assert IssueType.TOO_MANY_SMALL_FILES not in issues(metrics)


def test_thresholds_of_the_policy_are_used() -> None:
    strict = HealthThresholds(file_count_warning=10, file_count_critical=20)
    found = issues(healthy(data_file_count=15), strict)[IssueType.HIGH_FILE_COUNT]
    assert (found.severity, found.value, found.threshold) == (Severity.WARNING, 15, 10)


@pytest.mark.property
@given(
    count=st.integers(1, 10**6),
    warning=st.integers(0, 10**6),
    gap=st.integers(0, 10**6),
)
def test_severity_never_falls_as_a_metric_grows(count: int, warning: int, gap: int) -> None:
    thresholds = HealthThresholds(manifest_count_warning=warning, manifest_count_critical=warning + gap)

    def severity(value: int) -> int:
        found = issues(healthy(manifest_count=value), thresholds).get(IssueType.TOO_MANY_MANIFESTS)
        return 0 if found is None else list(Severity).index(found.severity)

    assert severity(count) <= severity(count + 1)
    assert (severity(count) > 0) == (count >= warning)
