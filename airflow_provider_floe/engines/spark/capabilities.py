"""What Spark honours, setting by setting, by what its Iceberg runtime was found to have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_floe.engines.capabilities import (
    Capabilities,
    CatalogAccess,
    OperationCapability,
    TableFeature,
)
from airflow_provider_floe.engines.spark import guards
from airflow_provider_floe.policies.model import SETTINGS_MODELS
from airflow_provider_floe.tables import Operation

_DAY = 24 * 3600.0
_VIEW = "floe_probe_no_such_view"

WANTED: Mapping[str, Mapping[str, Any]] = {
    "rewrite_data_files": {
        "strategy": "binpack",
        "sort_order": "a",
        "options": {"rewrite-all": "false"},
        "where": "1=1",
    },
    "rewrite_position_delete_files": {"options": {"rewrite-all": "false"}},
    "rewrite_manifests": {"use_caching": False, "spec_id": 0},
    "compute_table_stats": {"snapshot_id": 1, "columns": ["a"]},
    "expire_snapshots": {"snapshot_ids": [1], "stream_results": True, "clean_expired_metadata": True},
    "remove_orphan_files": {
        "file_list_view": _VIEW,
        "location": "s3://floe/probe",
        "prefix_mismatch_mode": "ERROR",
        "equal_schemes": {"s3a": "s3"},
        "equal_authorities": {"a": "b"},
    },
}
"""The arguments that the operations need, each with a value to ask with."""

_NEEDED = {
    Operation.REWRITE_DATA_FILES: {"strategy", "options"},
    Operation.REWRITE_POSITION_DELETE_FILES: {"options"},
    Operation.REWRITE_MANIFESTS: {"use_caching", "spec_id"},
    Operation.COMPUTE_TABLE_STATS: {"snapshot_id", "columns"},
    Operation.EXPIRE_SNAPSHOTS: {"snapshot_ids", "stream_results"},
    Operation.REMOVE_ORPHAN_FILES: {"file_list_view", "location", "prefix_mismatch_mode"},
}
"""Without these the guards do not hold, whatever the policy says."""

_BY_ARGUMENT = {
    Operation.REWRITE_DATA_FILES: {"sortOrder": "sort_order", "zOrderColumns": "sort_order", "filter": "where"},
    Operation.EXPIRE_SNAPSHOTS: {"cleanExpiredMetadata": "clean_expired_metadata"},
    Operation.REMOVE_ORPHAN_FILES: {"equalSchemes": "equal_schemes", "equalAuthorities": "equal_authorities"},
}
_BY_OPTION = {
    "targetFileSizeBytes": "target-file-size-bytes",
    "maxFileGroupSizeBytes": "max-file-group-size-bytes",
    "maxConcurrentFileGroupRewrites": "max-concurrent-file-group-rewrites",
    "partialProgressEnabled": "partial-progress.enabled",
    "partialProgressMaxCommits": "partial-progress.max-commits",
    "partialProgressMaxFailedCommits": "partial-progress.max-failed-commits",
    "rewriteJobOrder": "rewrite-job-order",
    "useStartingSequenceNumber": "use-starting-sequence-number",
    "removeDanglingDeletes": "remove-dangling-deletes",
    "outputSpecId": "output-spec-id",
}
OPTIONS = tuple(_BY_OPTION.values())
"""Options of ``rewrite_data_files`` that some runtimes lack."""

_BY_ACTION = {"stagingLocation": "stagingLocation", "sortBy": "sortBy", "rewriteIf": "rewriteIf"}

ACTIONS = tuple(_BY_ACTION.values())
"""Methods of the Java action that rewrites manifests."""

QUARANTINE = "Spark deletes files at once and cannot set them aside: use engine local"
NO_JAVA = "only the Java action can do that, which Spark Connect cannot reach: use spark-submit or engine local"
ORDER_UNKNOWN = (
    "over Spark Connect snapshots cannot be marked, so that files already in this order would be sorted again by "
    "every run: use spark-submit or engine local"
)

DELETION_VECTORS = "Spark compacts position delete files, not deletion vectors: use engine local, or rewrite_data_files"

_REFUSED_FEATURES: dict[Operation, dict[TableFeature, str]] = {
    Operation.REWRITE_DATA_FILES: {TableFeature.ENCRYPTED: guards.ENCRYPTED},
    Operation.REWRITE_POSITION_DELETE_FILES: {
        TableFeature.DELETION_VECTORS: DELETION_VECTORS,
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
    },
    Operation.REWRITE_MANIFESTS: {
        TableFeature.FORMAT_V3: guards.ROW_IDS,
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
    },
    Operation.COMPUTE_TABLE_STATS: {
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
    },
    Operation.EXPIRE_SNAPSHOTS: {
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
        TableFeature.GC_DISABLED: guards.GC_DISABLED,
    },
    Operation.REMOVE_ORPHAN_FILES: {
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
        TableFeature.GC_DISABLED: guards.GC_DISABLED,
    },
}


def spark_capabilities(
    found: Mapping[str, Any], *, java: bool, route: str, connection: str, catalogs: Mapping[str, str]
) -> Capabilities:
    """Every setting of every operation, honoured or refused.

    :param found: what :func:`~airflow_provider_floe.engines.spark.job.probe` told.
    :param java: whether the route gets at Java actions.
    :param route: what people call it.
    :param catalogs: Spark's names of the catalogs, by the names that policies use.
    """
    operations = {
        operation: _capability(operation, found["arguments"].get(operation.value), found, java)
        for operation in SETTINGS_MODELS
    }
    minimums = {Operation.REMOVE_ORPHAN_FILES: {"retentionPeriodInDays": _DAY}}
    return Capabilities(
        engine="spark",
        version=f"Spark {found['version']} ({route}, connection {connection})",
        operations=operations,
        catalogs={
            name: CatalogAccess(refusal=_access(in_spark, found["catalogs"][in_spark]), minimum_seconds=minimums)
            for name, in_spark in catalogs.items()
        },
        catalogs_setting=f"floe_catalogs in the extra of connection {connection!r}",
    )


def _access(catalog: str, wrong: str) -> str:
    return f"Spark cannot use its catalog {catalog!r} ({wrong}): check its configuration in Spark" if wrong else ""


def route_refusals(operation: Operation, *, java: bool) -> dict[str, str]:
    """Settings that no Spark honours over a route, with the reason."""
    refused = {"quarantine": QUARANTINE} if "quarantine" in _wires(operation) else {}
    if operation is Operation.REWRITE_DATA_FILES and not java:
        refused |= {"strategy": ORDER_UNKNOWN, "sortOrder": ORDER_UNKNOWN, "zOrderColumns": ORDER_UNKNOWN}
    if operation is Operation.REWRITE_MANIFESTS and not java:
        refused |= dict.fromkeys(_BY_ACTION, NO_JAVA)
    return refused


def _wires(operation: Operation) -> set[str]:
    return {field.alias or name for name, field in SETTINGS_MODELS[operation].model_fields.items()}


def _capability(
    operation: Operation, arguments: list[str] | None, found: Mapping[str, Any], java: bool
) -> OperationCapability:
    if arguments is None:
        why = found["missing"].get(operation.value, "its Iceberg runtime has no such procedure")
        return OperationCapability(supported=False, reason=f"Spark has no procedure {operation}: {why}")
    if lacking := sorted(_NEEDED[operation] - set(arguments)):
        reason = (
            f"Spark's {operation} has no argument {', '.join(lacking)}, without which it is not safe: upgrade Iceberg"
        )
        return OperationCapability(supported=False, reason=reason)
    refused = route_refusals(operation, java=java) | {
        wire: f"Spark's {operation} has no argument {name}: upgrade its Iceberg runtime"
        for wire, name in _BY_ARGUMENT.get(operation, {}).items()
        if name not in arguments
    }
    wires = _wires(operation)
    if operation is Operation.REWRITE_DATA_FILES and java:
        refused |= {
            wire: f"Spark's rewrite_data_files has no option {option}: upgrade its Iceberg runtime"
            for wire, option in _BY_OPTION.items()
            if option not in found["options"]
        }
    if operation is Operation.REWRITE_MANIFESTS and java:
        refused |= {
            wire: f"Spark's Java action has no {method}: upgrade its Iceberg runtime"
            for wire, method in _BY_ACTION.items()
            if method not in found["actions"]
        }
    return OperationCapability(
        honoured=frozenset(wires - refused.keys()),
        refused=refused,
        refused_features={feature.value: why for feature, why in _REFUSED_FEATURES[operation].items()},
    )
