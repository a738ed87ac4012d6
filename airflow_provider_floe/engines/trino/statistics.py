"""Compute table statistics with ``ANALYZE``, of the snapshot that is current when the query starts."""

from __future__ import annotations

from airflow_provider_floe.engines.base import OperationResult, RemoteJob
from airflow_provider_floe.engines.statistics_result import statistics_result
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.job import Ended, Submission
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.statistics import (
    statistics_columns,
    statistics_detail,
    statistics_work,
    written_statistics,
)
from airflow_provider_floe.policies.model import ComputeTableStats


def submit(job: Submission) -> RemoteJob | OperationResult:
    """Name the columns, in lower case as Trino does.

    :raises ConfigurationError: the settings name columns that the table has not.
    """
    settings = job.request.settings
    if not isinstance(settings, ComputeTableStats):
        raise ConfigurationError(
            f"compute_table_stats needs settings of computeTableStats, not {type(settings).__name__}"
        )
    table = job.load_table()
    columns = statistics_columns(table.metadata, settings)
    work = statistics_work(table.metadata, settings)
    if not work.found:
        before = table.metadata.current_snapshot_id
        return OperationResult(changed=False, message=work.summary, snapshot_before=before, snapshot_after=before)
    detail = statistics_detail(table.metadata, columns)
    names = ", ".join(sql.text(name.lower()) for name in columns.values())
    statement = f"ANALYZE {job.table_sql} WITH (columns = ARRAY[{names}])"
    return job.send_statement(statement, before=table, facts=detail, detail=detail)


def collect(job: Ended) -> OperationResult:
    """Hold the metadata and storage against what was asked.

    :raises VerificationFailed: the statistics are not there.
    """
    job.require(lambda table: written_statistics(table.metadata, job.facts) is not None)
    result = statistics_result(job.context.load_table(), job.facts, "Trino")
    job.context.committed(job.facts)
    return result.model_copy(update={"details": {**result.details, **job.told}})
