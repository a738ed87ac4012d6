"""Compute table statistics on Spark, of the snapshot that is current when the work is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.spark import request as requests
from airflow_provider_floe.engines.spark.guards import refuse_unsafe
from airflow_provider_floe.engines.spark.task import Before, Begun, Order, SparkTask
from airflow_provider_floe.engines.statistics_result import statistics_result
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.statistics import statistics_columns, statistics_detail, statistics_work
from airflow_provider_floe.policies.model import ComputeTableStats


def prepare(task: SparkTask) -> Order | OperationResult:
    """Name the columns and the snapshot.

    :raises ConfigurationError: the settings name columns that the table has not.
    """
    settings = task.request.settings
    if not isinstance(settings, ComputeTableStats):
        raise ConfigurationError(
            f"compute_table_stats needs settings of computeTableStats, not {type(settings).__name__}"
        )
    task.context.checkpoint()
    before = task.context.load_table()
    known = Before.of(before)
    refuse_unsafe(before, deletes_files=False)
    columns = statistics_columns(before.metadata, settings)
    work = statistics_work(before.metadata, settings)
    if not work.found or known.current_snapshot_id is None:
        return task.result(known, None, work.summary)
    step = requests.compute_table_stats(task.names, known.current_snapshot_id, list(columns.values()))
    return Order(Begun(before=known, detail=statistics_detail(before.metadata, columns)), [step])


def report(task: SparkTask, begun: Begun, outcome: Mapping[str, Any]) -> OperationResult:
    """Hold the metadata and storage against what was asked.

    :raises VerificationFailed: the statistics are not there.
    """
    after = task.context.load_table()
    found = statistics_result(after, begun.detail, "Spark")
    task.context.committed(begun.detail)
    return task.result(
        begun.before,
        after,
        found.message,
        files_added=found.files_added,
        bytes_added=found.bytes_added,
        details={**found.details, "application": outcome.get("application")},
    )
