"""Assess: find the tables that the run's policies govern, and report on the health of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_provider_floe.catalogs.base import CatalogClient
from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.errors import CatalogUnavailable, FloeError, TableNotFound
from airflow_provider_floe.health.assess import assess_table
from airflow_provider_floe.health.report import Assessment, AssessmentFailure, FailureKind, HealthReport, TableId
from airflow_provider_floe.maintenance.ended_early import record_refusal
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.settle import settle_all
from airflow_provider_floe.policies.model import HealthThresholds, Policy
from airflow_provider_floe.policies.patterns import TablePattern
from airflow_provider_floe.policies.resolution import Governance, governing, resolve
from airflow_provider_floe.tables import Operation, TableRef

log = logging.getLogger(__name__)


def assess(env: Environment, request: RunRequest) -> Assessment:
    """Assess the tables of a run and keep the assessment in the store for the plan task.

    Before anything else, records that dead tasks left behind are settled.

    :raises PolicyNotFound: a table run: no enabled policy governs the table, or the named one does not exist.
    :raises PolicyDisabled: a table run: the named policy, or every policy that matches, is disabled.
    :raises PolicyDoesNotMatch: a table run: the named policy does not match the table.
    :raises TableNotFound: a table run: the catalog has no such table.
    """
    env.emit(
        Event(
            kind=EventKind.TRIGGERED,
            at=env.now(),
            message=f"{request.mode} run {request.run_id} triggered for {_subject(request)}",
            table=request.table,
            data={"mode": request.mode.value, "policies": list(request.policies)},
        )
    )
    if request.table is not None:
        table = request.table.ref()
        try:
            governance_of(env, request, table)
            env.catalog(table.catalog).load(table)
        except FloeError as error:  # before anything is touched
            record_refusal(env, request, error)
            raise
        _settle_first(env, request)
        reports, failures = _assess_tables(env, request, [table])
    else:
        _settle_first(env, request)
        tables, failures = governed_tables(env, request.policies)
        log.info("%s tables are governed by %s", len(tables), _subject(request))
        reports, more = _assess_tables(env, request, tables)
        failures += more
    capabilities, unavailable = _probe(env)
    assessment = Assessment(
        created_at=env.now(),
        reports=tuple(reports),
        failures=tuple(failures),
        policies={policy.name: policy.revision for policy in env.policies},
        context={
            "request": request.model_dump(mode="json"),
            "capabilities": {name: found.model_dump(mode="json") for name, found in capabilities.items()},
            "unavailable": unavailable,
        },
    )
    if env.settings.persist_health and not request.dry_run:
        env.store.save_reports(
            reports,
            keep_per_table=env.settings.health_reports_per_table,
            keep_days=env.settings.health_report_days,
        )
    env.store.save_assessment(assessment)
    return assessment


def _settle_first(env: Environment, request: RunRequest) -> None:
    if not request.dry_run:
        settle_all(env)


def governed_tables(env: Environment, policies: Iterable[str] = ()) -> tuple[list[TableRef], list[AssessmentFailure]]:
    """Tables with at least one operation governed by one of these policies (default: any), and catalogs that failed."""
    wanted = set(policies) or {policy.name for policy in env.policies}
    patterns = [TablePattern.parse(policy.table_pattern) for policy in env.policies if policy.name in wanted]
    tables: list[TableRef] = []
    failures: list[AssessmentFailure] = []
    for name, catalog in env.catalogs.items():
        matching = [pattern for pattern in patterns if pattern.may_match_catalog(name)]
        if not matching:
            continue
        try:
            namespaces = [
                namespace
                for namespace in catalog.namespaces()
                if any(pattern.may_match_namespace(name, namespace) for pattern in matching)
            ]
            tables += [
                table
                for table in catalog.tables(namespaces)
                if any(pattern.matches(table) for pattern in matching)
                and any(
                    found.policy is not None and found.policy.name in wanted
                    for found in resolve(env.policies, table).values()
                )
            ]
        except FloeError as error:
            failures.append(_failure(env, FailureKind.CATALOG, name, None, error))
    return sorted(tables), failures


def governance_of(
    env: Environment, request: RunRequest, table: TableRef, properties: Mapping[str, str] | None = None
) -> dict[Operation, Governance]:
    """Who governs each operation on a table, as far as this run is concerned.

    A table run sees every governor, or the one named; a policy DAG only what its own policies govern.
    """
    if request.table is not None:
        named = request.policies[0] if request.policies else None
        return dict(governing(env.policies, table, named, properties or {}))
    resolved = resolve(env.policies, table, properties or {})
    if not request.policies:
        return dict(resolved)
    return {
        operation: found
        if found.policy is None or found.policy.name in request.policies
        else Governance(None, f"{found.explanation}: left to that policy's own runs")
        for operation, found in resolved.items()
    }


def _assess_tables(
    env: Environment, request: RunRequest, tables: list[TableRef]
) -> tuple[list[HealthReport], list[AssessmentFailure]]:
    with ThreadPoolExecutor(env.settings.assess_threads) as pool:
        results = list(pool.map(lambda table: _assess_one(env, request, table), tables))
    reports = [result for result in results if isinstance(result, HealthReport)]
    failures = [result for result in results if isinstance(result, AssessmentFailure)]
    return reports, failures


def _assess_one(env: Environment, request: RunRequest, ref: TableRef) -> HealthReport | AssessmentFailure:
    try:
        table = env.catalog(ref.catalog).load(ref)
        governance = governance_of(env, request, ref, table.properties)
        governors = [found.policy for found in governance.values() if found.policy is not None]
        settings = {
            operation: own
            for operation, found in governance.items()
            if found.policy is not None and (own := found.policy.settings(operation)) is not None and own.enabled
        }
        report = assess_table(
            table,
            ref,
            mode=env.settings.scan_mode,
            thresholds=_thresholds(governors),
            settings=settings,
            now=env.now(),
            orphan_listing_limit=env.settings.orphan_listing_limit,
        )
        report = _without_what_the_catalog_cannot(report, env.catalog(ref.catalog))
    except TableNotFound as error:
        return _failure(env, FailureKind.VANISHED, ref.catalog, ref, error)
    except CatalogUnavailable as error:
        return _failure(env, FailureKind.CATALOG, ref.catalog, ref, error)
    except Exception as error:
        log.debug("assessing %s failed", ref, exc_info=True)
        return _failure(env, FailureKind.UNREADABLE, ref.catalog, ref, error)
    names = sorted({policy.name for policy in governors})
    env.emit(
        Event(
            kind=EventKind.TABLE_ASSESSED,
            at=report.assessed_at,
            message=f"{ref}: {_health_line(report)}",
            table=TableId.of(ref),
            data={"policies": names, "issues": [issue.type.value for issue in report.issues]},
        )
    )
    for name in names:
        env.emit(
            Event(
                kind=EventKind.POLICY_MATCHED,
                at=report.assessed_at,
                level=logging.DEBUG,
                message=f"{ref}: matched by policy {name}",
                table=TableId.of(ref),
                data={"policy": name},
            )
        )
    return report


def _without_what_the_catalog_cannot(report: HealthReport, catalog: CatalogClient) -> HealthReport:
    refused = {
        operation: work.model_copy(update={"refusal": why})
        for operation, work in report.work.items()
        if (why := catalog.cannot(operation)) is not None
    }
    return report.model_copy(update={"work": {**report.work, **refused}})


def _thresholds(governors: list[Policy]) -> HealthThresholds:
    """Those of the governor with the highest effective priority, so that one report has one yardstick."""
    if not governors:
        return HealthThresholds()
    best = min(
        governors,
        key=lambda policy: (
            -(policy.priority * 1000 + TablePattern.parse(policy.table_pattern).specificity),
            policy.name,
        ),
    )
    return best.health_thresholds


def _health_line(report: HealthReport) -> str:
    metrics = report.metrics
    parts = [
        f"{metrics.data_file_count} data files" if metrics.data_file_count is not None else "data files unknown",
        f"{metrics.delete_file_count or 0} delete files",
        f"{metrics.manifest_count} manifests",
        f"{metrics.snapshot_count} snapshots",
    ]
    issues = ", ".join(f"{issue.type} ({issue.severity})" for issue in report.issues) or "no issue"
    return f"{', '.join(parts)}; {issues}"


def _failure(
    env: Environment, kind: FailureKind, catalog: str, table: TableRef | None, error: Exception
) -> AssessmentFailure:
    failure = AssessmentFailure(
        catalog=catalog,
        table=TableId.of(table) if table else None,
        kind=kind,
        message=str(error) if isinstance(error, FloeError) else f"{type(error).__name__}: {error}",
    )
    env.emit(
        Event(
            kind=EventKind.ASSESSMENT_FAILED,
            at=env.now(),
            level=logging.WARNING if kind is FailureKind.VANISHED else logging.ERROR,
            message=f"{failure.subject} not assessed ({kind}): {failure.message}",
            table=failure.table,
            data={"kind": kind.value},
        )
    )
    return failure


def _probe(env: Environment) -> tuple[dict[str, Capabilities], dict[str, str]]:
    capabilities: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for name, engine in env.engines.items():
        try:
            capabilities[name] = engine.probe()
        except Exception as error:
            unavailable[name] = f"{type(error).__name__}: {error}"
            log.warning("engine %s is not available: %s", name, error)
    return capabilities, unavailable


def _subject(request: RunRequest) -> str:
    if request.table is not None:
        return str(request.table.ref())
    return f"policy {', '.join(request.policies)}" if request.policies else "all policies"
