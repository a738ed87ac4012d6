"""Which metrics are issues, by a policy's thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_floe.health.report import Issue, IssueType, Severity, TableMetrics
from airflow_provider_floe.policies.model import HealthThresholds
from airflow_provider_floe.text import bytes_text

_DAY = 86_400.0


@dataclass(frozen=True)
class _Rule:
    """One metric against its pair of thresholds.

    :ivar value: the metric; None where it is unknown, which is no issue.
    :ivar text: the finding as a phrase with numbers and units.
    :ivar limit: a threshold in the same words.
    """

    type: IssueType
    threshold: str
    value: Callable[[TableMetrics, datetime], float | None]
    text: Callable[[TableMetrics, HealthThresholds, float], str]
    limit: Callable[[float], str]


def find_issues(metrics: TableMetrics, thresholds: HealthThresholds, now: datetime) -> tuple[Issue, ...]:
    """Every metric that reached a threshold, in the order of :class:`IssueType`. A metric not known is no issue."""
    found = [*_empty(metrics), *(issue for rule in _RULES for issue in _judge(rule, metrics, thresholds, now))]
    order = list(IssueType)
    return tuple(sorted(found, key=lambda issue: order.index(issue.type)))


def _judge(rule: _Rule, metrics: TableMetrics, thresholds: HealthThresholds, now: datetime) -> Iterator[Issue]:
    value = rule.value(metrics, now)
    if value is None or value <= 0:
        return
    for severity in (Severity.CRITICAL, Severity.WARNING):
        threshold = getattr(thresholds, rule.threshold.format(severity.value.lower()))
        if value >= threshold:
            text = f"{rule.text(metrics, thresholds, value)}: {severity.value.lower()} from {rule.limit(threshold)}"
            yield Issue(type=rule.type, severity=severity, message=text, value=value, threshold=threshold)
            return


def _empty(metrics: TableMetrics) -> Iterator[Issue]:
    if metrics.data_file_count == 0:
        text = "the table has no data files" if metrics.snapshot_count else "the table has no snapshot"
        yield Issue(type=IssueType.TABLE_EMPTY, severity=Severity.INFO, message=text, value=0)


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max((now - moment).total_seconds() / _DAY, 0.0)


def _small(metrics: TableMetrics, _: datetime) -> float | None:
    """One small file alone cannot be merged with anything."""
    return metrics.small_file_percentage if (metrics.small_file_count or 0) > 1 else None


def _oldest(metrics: TableMetrics, now: datetime) -> float | None:
    """The only snapshot is the table's state, however old: that is for STALE_METADATA to say."""
    return _age(metrics.oldest_snapshot_at, now) if metrics.snapshot_count > 1 else None


def _count(noun: str) -> Callable[[float], str]:
    return lambda number: f"{number:,.0f} {noun}"


def _percent(number: float) -> str:
    return f"{number:.4g} %"


def _days(number: float) -> str:
    return f"{number:.4g} days"


def _number(number: float) -> str:
    return f"{number:.4g}"


_RULES = (
    _Rule(
        IssueType.TOO_MANY_SMALL_FILES,
        "small_file_percent_{}",
        _small,
        lambda m, t, v: (
            f"{m.small_file_count:,} of {m.data_file_count:,} data files ({_percent(v)}) "
            f"are smaller than {bytes_text(t.small_file_size_bytes)}"
        ),
        _percent,
    ),
    _Rule(
        IssueType.TOO_MANY_LARGE_FILES,
        "large_file_percent_{}",
        lambda m, _: m.large_file_percentage,
        lambda m, t, v: (
            f"{m.large_file_count:,} of {m.data_file_count:,} data files ({_percent(v)}) "
            f"are larger than {bytes_text(t.large_file_size_bytes)}"
        ),
        _percent,
    ),
    _Rule(
        IssueType.HIGH_FILE_COUNT,
        "file_count_{}",
        lambda m, _: m.data_file_count,
        lambda m, t, v: f"{v:,.0f} data files",
        _count("files"),
    ),
    _Rule(
        IssueType.TOO_MANY_SNAPSHOTS,
        "snapshot_count_{}",
        lambda m, _: m.snapshot_count,
        lambda m, t, v: f"{v:,.0f} snapshots",
        _count("snapshots"),
    ),
    _Rule(
        IssueType.OLD_SNAPSHOTS,
        "snapshot_age_{}_days",
        _oldest,
        lambda m, t, v: f"the oldest of {m.snapshot_count:,} snapshots is {_days(v)} old",
        _days,
    ),
    _Rule(
        IssueType.TOO_MANY_DELETE_FILES,
        "delete_file_count_{}",
        lambda m, _: m.delete_file_count,
        lambda m, t, v: f"{v:,.0f} delete files{_kinds(m)}",
        _count("delete files"),
    ),
    _Rule(
        IssueType.HIGH_DELETE_FILE_RATIO,
        "delete_file_ratio_{}",
        lambda m, _: m.delete_file_ratio,
        lambda m, t, v: (
            f"{_number(v)} delete files for each data file ({m.delete_file_count:,} to {m.data_file_count:,})"
        ),
        _number,
    ),
    _Rule(
        IssueType.TOO_MANY_MANIFESTS,
        "manifest_count_{}",
        lambda m, _: m.manifest_count,
        lambda m, t, v: f"{v:,.0f} manifests, {m.delete_manifest_count:,} of them for deletes",
        _count("manifests"),
    ),
    _Rule(
        IssueType.LARGE_MANIFEST_LIST,
        "manifest_size_{}_bytes",
        lambda m, _: m.total_manifest_size_bytes,
        lambda m, t, v: f"{m.manifest_count:,} manifests hold {bytes_text(v)}",
        bytes_text,
    ),
    _Rule(
        IssueType.TOO_MANY_PARTITIONS,
        "partition_count_{}",
        lambda m, _: m.partition_count,
        lambda m, t, v: f"{v:,.0f} partitions",
        _count("partitions"),
    ),
    _Rule(
        IssueType.PARTITION_SKEW,
        "partition_skew_{}",
        lambda m, _: m.partition_skew,
        lambda m, t, v: f"the fullest partition has {_number(v)} times as many data files as the mean partition",
        lambda number: f"{_number(number)} times",
    ),
    _Rule(
        IssueType.STALE_METADATA,
        "stale_metadata_{}_days",
        lambda m, now: _age(m.newest_snapshot_at, now),
        lambda m, t, v: f"the newest snapshot is {_days(v)} old",
        _days,
    ),
)


def _kinds(metrics: TableMetrics) -> str:
    parts = (
        (metrics.position_delete_file_count, "position"),
        (metrics.equality_delete_file_count, "equality"),
        (metrics.deletion_vector_count, "deletion vectors"),
    )
    known = [f"{count:,} {kind}" for count, kind in parts if count]
    return f" ({', '.join(known)})" if known else ""
