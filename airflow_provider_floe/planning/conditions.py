"""A policy's trigger conditions, held against the metrics of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic.alias_generators import to_camel

from airflow_provider_floe.health.report import TableMetrics
from airflow_provider_floe.policies.model import TriggerConditions
from airflow_provider_floe.tables import DELETE_FILE_OPERATIONS, Operation
from airflow_provider_floe.text import bytes_text, number_text


@dataclass(frozen=True, slots=True)
class ConditionCheck:
    """One threshold held against its metric.

    :ivar met: False also when the metric is not known.
    :ivar text: wire name of the condition, with both numbers.
    :ivar operations: what the condition speaks for; empty: for no operation in particular.
    """

    met: bool
    text: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class _Condition:
    name: str
    metric: Callable[[TableMetrics, datetime], float | None]
    show: Callable[[float], str]
    operations: tuple[Operation, ...]


def _percent(value: float) -> str:
    return f"{number_text(value)} %"


def _days(value: float) -> str:
    return f"{number_text(value)} days"


def _oldest_snapshot_days(metrics: TableMetrics, now: datetime) -> float | None:
    if metrics.oldest_snapshot_at is None:
        return None
    return (now - metrics.oldest_snapshot_at) / timedelta(days=1)


_CONDITIONS = (
    _Condition(
        "small_file_percentage_above",
        lambda metrics, _: metrics.small_file_percentage,
        _percent,
        (Operation.REWRITE_DATA_FILES,),
    ),
    _Condition(
        "small_file_count_above",
        lambda metrics, _: metrics.small_file_count,
        number_text,
        (Operation.REWRITE_DATA_FILES,),
    ),
    _Condition(
        "total_file_size_above_bytes",
        lambda metrics, _: metrics.total_data_size_bytes,
        bytes_text,
        (Operation.REWRITE_DATA_FILES,),
    ),
    _Condition(
        "delete_file_count_above",
        lambda metrics, _: metrics.delete_file_count,
        number_text,
        DELETE_FILE_OPERATIONS,
    ),
    _Condition(
        "delete_file_ratio_above",
        lambda metrics, _: metrics.delete_file_ratio,
        number_text,
        DELETE_FILE_OPERATIONS,
    ),
    _Condition(
        "snapshot_count_above", lambda metrics, _: metrics.snapshot_count, number_text, (Operation.EXPIRE_SNAPSHOTS,)
    ),
    _Condition("snapshot_age_above_days", _oldest_snapshot_days, _days, (Operation.EXPIRE_SNAPSHOTS,)),
    _Condition("partition_count_above", lambda metrics, _: metrics.partition_count, number_text, ()),
    _Condition("partition_skew_above", lambda metrics, _: metrics.partition_skew, number_text, ()),
    _Condition(
        "manifest_size_above_bytes",
        lambda metrics, _: metrics.total_manifest_size_bytes,
        bytes_text,
        (Operation.REWRITE_MANIFESTS,),
    ),
)


def check_conditions(
    conditions: TriggerConditions | None, metrics: TableMetrics, now: datetime
) -> tuple[ConditionCheck, ...]:
    """Every threshold that is set, in the document's order; empty when none is."""
    if conditions is None:
        return ()
    checks = []
    for condition in _CONDITIONS:
        threshold = getattr(conditions, condition.name)
        if threshold is None:
            continue
        value = condition.metric(metrics, now)
        met = value is not None and value >= threshold
        shown = "unknown" if value is None else condition.show(value)
        text = f"{to_camel(condition.name)}: {shown}, threshold {condition.show(threshold)}"
        checks.append(ConditionCheck(met, text, condition.operations))
    return tuple(checks)


def texts(checks: Iterable[ConditionCheck], *, met: bool) -> tuple[str, ...]:
    """The texts of those that are met, or of those that are not."""
    return tuple(check.text for check in checks if check.met is met)
