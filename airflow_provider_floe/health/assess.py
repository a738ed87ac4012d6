"""The health report of one table: facts, metrics, issues, and the work that its policies' settings would find."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from airflow_provider_floe.health.issues import find_issues
from airflow_provider_floe.health.metrics import metrics_of
from airflow_provider_floe.health.reading import MAX_KEPT_FILES, Reading, read_table
from airflow_provider_floe.health.report import HealthReport, OperationWork, ScanMode, TableFacts, TableId
from airflow_provider_floe.iceberg.delete_selection import position_delete_work
from airflow_provider_floe.iceberg.features import table_features
from airflow_provider_floe.iceberg.orphan_search import orphan_work
from airflow_provider_floe.iceberg.retention import expire_work
from airflow_provider_floe.iceberg.selection import manifest_work, rewrite_work
from airflow_provider_floe.iceberg.statistics import statistics_work
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import (
    ComputeTableStats,
    ExpireSnapshots,
    HealthThresholds,
    OperationSettings,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
    RewritePositionDeleteFiles,
)
from airflow_provider_floe.tables import DELETE_FILE_OPERATIONS, Operation, TableRef

log = logging.getLogger(__name__)

_FACT_PREFIXES = ("floe.", "gc.", "history.", "write.", "commit.", "encryption.")


def assess_table(
    table: Table,
    ref: TableRef,
    *,
    mode: ScanMode,
    thresholds: HealthThresholds,
    settings: Mapping[Operation, OperationSettings],
    now: datetime,
    orphan_listing_limit: int,
) -> HealthReport:
    """Assess a table at its current snapshot; nothing is written.

    :param settings: of the governing policies, for the operations that are governed.
    :param now: UTC; ages are counted from it.
    :param orphan_listing_limit: most files of the table's storage that may be listed; 0 lists nothing.
    :raises TableUnreadable: naming the metadata that is missing or damaged. An operation whose work cannot be told
        does not fail the report: its ``found`` is None and its summary holds the error.
    """
    reading = read_table(table, mode, keep_files=not settings.keys().isdisjoint(DELETE_FILE_OPERATIONS))
    metrics = metrics_of(table, reading, thresholds)
    return HealthReport(
        table=TableId.of(ref),
        assessed_at=now,
        scan_mode=mode,
        facts=_facts(table, reading),
        metrics=metrics,
        issues=find_issues(metrics, thresholds, now),
        work={
            operation: _work(ref, operation, table, own, reading, now, orphan_listing_limit)
            for operation, own in settings.items()
        },
    )


def _facts(table: Table, reading: Reading) -> TableFacts:
    return TableFacts(
        uuid=str(table.metadata.table_uuid),
        location=table.location(),
        metadata_location=table.metadata_location,
        format_version=table.metadata.format_version,
        snapshot_id=table.metadata.current_snapshot_id,
        properties={key: value for key, value in table.properties.items() if key.startswith(_FACT_PREFIXES)},
        features=table_features(table, reading.manifests, reading.files),
    )


def _work(
    ref: TableRef,
    operation: Operation,
    table: Table,
    settings: OperationSettings,
    reading: Reading,
    now: datetime,
    orphan_listing_limit: int,
) -> OperationWork:
    try:
        work = _find(table, settings, reading, now, orphan_listing_limit)
    except Exception as error:
        log.warning("%s: what %s would do cannot be told", ref, operation, exc_info=True)
        work = Work(None, f"not known: {type(error).__name__}: {error}")
    return OperationWork(operation=operation, **asdict(work))


def _find(
    table: Table, settings: OperationSettings, reading: Reading, now: datetime, orphan_listing_limit: int
) -> Work:
    match settings:
        case RewriteDataFiles():
            return _rewrite(table, settings, reading)
        case RewritePositionDeleteFiles():
            return _rewrite_position_deletes(table, settings, reading)
        case RewriteManifests():
            return manifest_work(table, settings)
        case ComputeTableStats():
            return statistics_work(table.metadata, settings)
        case ExpireSnapshots():
            return expire_work(table, settings, now)
        case OrphanCleanup():
            return orphan_work(table, settings, now, orphan_listing_limit)
    return Work(None, f"not known for settings of type {type(settings).__name__}")


def _rewrite(table: Table, settings: RewriteDataFiles, reading: Reading) -> Work:
    if not reading.manifests:
        return Work(False, "the table has no files")
    if reading.complete:
        return rewrite_work(table, settings, reading.live)
    return _files_not_read(reading)


def _rewrite_position_deletes(table: Table, settings: RewritePositionDeleteFiles, reading: Reading) -> Work:
    if all(manifest.content == ManifestContent.DATA for manifest in reading.manifests):
        return Work(False, "the table has no delete files")
    if reading.live is not None:
        return position_delete_work(table.metadata, reading.live, settings)
    return _files_not_read(reading)


def _files_not_read(reading: Reading) -> Work:
    if reading.complete:
        return Work(None, f"not known: more than {MAX_KEPT_FILES:,} files; the rewrite itself selects them")
    return Work(None, f"not known: {'; '.join(reading.notes) or 'the scan mode opens no manifests'}")
