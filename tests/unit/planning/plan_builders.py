"""Builders and strategies for plan requests: readable defaults, and random ones for the property tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from airflow_provider_floe.engines.capabilities import Capabilities, OperationCapability
from airflow_provider_floe.health.report import (
    HealthReport,
    Issue,
    IssueType,
    OperationWork,
    ScanMode,
    Severity,
    TableFacts,
    TableId,
    TableMetrics,
)
from airflow_provider_floe.planning.model import (
    Batching,
    Budgets,
    DueState,
    OperationHistory,
    PlanRequest,
    RunMode,
    TableInputs,
)
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policies.resolution import Governance
from airflow_provider_floe.tables import Operation

NOW = datetime(2026, 3, 10, 2, 30, tzinfo=UTC)
SLOT = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
DUE = DueState(
    scheduled=True, latest_slot=SLOT, consumed_slot=SLOT - timedelta(days=1), next_slot=SLOT + timedelta(days=1)
)
ALL_SETTINGS: dict[str, Any] = {
    "rewriteDataFiles": {},
    "rewriteManifests": {},
    "expireSnapshots": {},
    "orphanCleanup": {},
}


def policy(**fields: Any) -> Policy:
    return Policy.model_validate({"name": "events", "tablePattern": "*", **ALL_SETTINGS, **fields})


def engine(name: str = "local", **operations: OperationCapability) -> Capabilities:
    able = {operation: OperationCapability() for operation in Operation}
    return Capabilities(
        engine=name, version="1", operations=able | {Operation(key): value for key, value in operations.items()}
    )


def work(operation: Operation, found: bool | None = True, **fields: Any) -> OperationWork:
    summary = {True: "there is some", False: "nothing to merge", None: "not read"}[found]
    return OperationWork(operation=operation, found=found, **{"summary": summary, **fields})


def issue(kind: IssueType, severity: Severity = Severity.WARNING) -> Issue:
    return Issue(type=kind, severity=severity, message=f"{kind} is 12, threshold 10", value=12, threshold=10)


def report(
    name: str = "t",
    *,
    issues: tuple[Issue, ...] = (),
    works: tuple[OperationWork, ...] = (),
    metrics: TableMetrics | None = None,
) -> HealthReport:
    return HealthReport(
        id=f"report-{name}",
        table=TableId(catalog="lake", namespace=("db",), name=name),
        assessed_at=NOW,
        scan_mode=ScanMode.SCAN,
        facts=TableFacts(
            uuid=f"uuid-{name}",
            location=f"s3://lake/db/{name}",
            metadata_location=f"s3://lake/db/{name}/metadata/1.json",
            format_version=2,
            snapshot_id=7,
        ),
        metrics=metrics or TableMetrics(snapshot_count=1),
        issues=issues,
        work={item.operation: item for item in works},
    )


def inputs(
    health: HealthReport,
    *,
    governor: Policy | None = None,
    due: DueState = DUE,
    history: OperationHistory | None = None,
) -> TableInputs:
    governor = governor or policy()
    return TableInputs(
        report=health,
        governance={
            operation: Governance(governor, f"governed by {governor.name}")
            if governor.settings(operation) is not None
            else Governance(None, "no policy that matches has settings for it")
            for operation in Operation
        },
        history=dict.fromkeys(Operation, history or OperationHistory()),
        due=dict.fromkeys(Operation, due),
    )


def request(*tables: TableInputs, mode: RunMode = RunMode.SCHEDULED, **fields: Any) -> PlanRequest:
    return PlanRequest(
        **{
            "run_id": "run-1",
            "mode": mode,
            "now": NOW,
            "tables": tables,
            "capabilities": {"local": engine()},
            **fields,
        }
    )


# --- random requests -------------------------------------------------------------------------------------------------

moments = st.integers(0, 60 * 24 * 40).map(lambda minutes: NOW - timedelta(minutes=minutes))
sizes = st.sampled_from([0, 0, 1, 10, 1000, 10**6, 10**9, 60 * 1024**3])


@st.composite
def histories(draw: st.DrawFn) -> OperationHistory:
    if draw(st.integers(0, 5)) == 0:
        return OperationHistory(known=False)
    runs = draw(st.integers(0, 10))
    failures = draw(st.integers(0, runs))
    return OperationHistory(
        runs=runs,
        failures=failures,
        last_run_at=draw(moments) if runs else None,
        last_success_at=draw(moments) if runs > failures else None,
        last_failure_at=draw(moments) if failures else None,
        consecutive_failures=draw(st.integers(0, failures)),
        consecutive_zero_changes=draw(st.integers(0, runs - failures)),
        failures_since_success=draw(st.integers(0, failures)),
        last_slot_throttled=draw(st.booleans()),
    )


@st.composite
def dues(draw: st.DrawFn) -> DueState:
    latest = draw(st.none() | moments)
    in_window = draw(st.booleans())
    return DueState(
        scheduled=draw(st.integers(0, 4)) > 0,
        latest_slot=latest,
        consumed_slot=draw(st.sampled_from([None, latest, NOW - timedelta(days=50)])),
        next_slot=NOW + timedelta(hours=draw(st.integers(1, 100))),
        in_window=in_window,
        next_window_at=None if in_window else NOW + timedelta(hours=1),
    )


@st.composite
def works(draw: st.DrawFn, operation: Operation) -> OperationWork:
    found = draw(st.sampled_from([True, True, True, False, None]))
    return work(
        operation,
        found,
        bytes_in=draw(sizes) if found else 0,
        files_in=draw(st.integers(0, 50)) if found else 0,
        refusal="gc.enabled=false" if draw(st.integers(0, 9)) == 0 else None,
    )


@st.composite
def metrics(draw: st.DrawFn) -> TableMetrics:
    return TableMetrics(
        snapshot_count=draw(st.integers(0, 20)),
        oldest_snapshot_at=draw(st.none() | moments),
        newest_snapshot_at=draw(st.none() | moments),
        small_file_percentage=draw(st.none() | st.floats(0, 100)),
        small_file_count=draw(st.none() | st.integers(0, 20)),
        delete_file_ratio=draw(st.none() | st.floats(0, 2)),
        total_data_size_bytes=draw(st.none() | sizes),
        partition_skew=draw(st.none() | st.floats(1, 20)),
        total_manifest_size_bytes=draw(sizes),
    )


conditions = st.fixed_dictionaries(
    {},
    optional={
        "smallFilePercentageAbove": st.floats(0, 100),
        "smallFileCountAbove": st.integers(0, 20),
        "deleteFileRatioAbove": st.floats(0, 2),
        "snapshotCountAbove": st.integers(0, 20),
        "snapshotAgeAboveDays": st.integers(0, 40),
        "partitionSkewAbove": st.floats(1, 20),
        "manifestSizeAboveBytes": sizes,
        "minIntervalMinutes": st.integers(0, 60 * 24 * 40),
        "perOperationMinIntervalMinutes": st.dictionaries(
            st.sampled_from([operation.value for operation in Operation]), st.integers(0, 60 * 24 * 40)
        ),
        "criticalPipeline": st.booleans(),
        "criticalPipelineMaxDelayMinutes": st.integers(1, 60 * 24 * 40),
        "triggerLogic": st.sampled_from(["OR", "AND"]),
    },
)


@st.composite
def policies(draw: st.DrawFn, name: str = "p") -> Policy:
    document: dict[str, Any] = {"name": name, "tablePattern": "*"}
    for operation in Operation:
        if draw(st.integers(0, 9)) == 0:
            continue
        settings: dict[str, Any] = {"enabled": draw(st.integers(0, 9)) > 0}
        if draw(st.integers(0, 3)) == 0:
            settings["triggerConditions"] = draw(conditions)
        if draw(st.integers(0, 3)) == 0:
            settings["engine"] = draw(st.sampled_from(["local", "spark", "nowhere"]))
        document[operation.policy_key] = settings
        document[f"{operation.policy_key}Schedule"] = {"interval": 1, "priority": draw(st.integers(0, 2))}
    if draw(st.booleans()):
        document["triggerConditions"] = draw(conditions)
    return Policy.model_validate(document)


@st.composite
def table_inputs(draw: st.DrawFn, name: str) -> TableInputs:
    governor = draw(policies())
    health = report(
        name,
        issues=tuple(
            issue(kind, draw(st.sampled_from(list(Severity))))
            for kind in draw(st.lists(st.sampled_from(list(IssueType)), max_size=4, unique=True))
        ),
        works=tuple(draw(works(operation)) for operation in governor.operations),
        metrics=draw(metrics()),
    )
    base = inputs(health, governor=governor)
    return TableInputs(
        report=base.report,
        governance=base.governance,
        history={operation: draw(histories()) for operation in Operation},
        due={operation: draw(dues()) for operation in Operation},
    )


@st.composite
def budgets(draw: st.DrawFn) -> Budgets:
    limit = draw(sizes)
    return Budgets(
        max_tables_per_run=draw(st.integers(0, 4)),
        max_operations_per_run=draw(st.integers(0, 8)),
        max_bytes_per_hour=limit,
        bytes_left_this_hour=draw(st.none() | st.integers(0, limit)),
    )


@st.composite
def requests(draw: st.DrawFn, max_tables: int = 5) -> PlanRequest:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=max_tables, unique=True))
    return request(
        *(draw(table_inputs(name)) for name in names),
        mode=draw(st.sampled_from(list(RunMode))),
        capabilities={name: engine(name) for name in draw(st.sampled_from([["local"], ["local", "spark"], ["spark"]]))},
        unavailable={"trino": "connection trino_default does not exist"},
        operations=draw(st.none() | st.frozensets(st.sampled_from(list(Operation)), min_size=1)),
        force=draw(st.integers(0, 4)) == 0,
        budgets=draw(budgets()),
        batching=Batching(max_batches=draw(st.integers(1, 4)), target_bytes=10**6, max_tables=draw(st.integers(1, 3))),
    )
