"""What the embedded engine honours, setting by setting, and the tables that it refuses."""

from __future__ import annotations

from airflow_provider_floe.engines.capabilities import Capabilities, OperationCapability, TableFeature
from airflow_provider_floe.engines.local import guards
from airflow_provider_floe.policies.model import SETTINGS_MODELS
from airflow_provider_floe.tables import Operation

_REFUSED_FEATURES: dict[Operation, dict[TableFeature, str]] = {
    Operation.REWRITE_DATA_FILES: {
        TableFeature.NON_PARQUET_FILES: guards.NOT_PARQUET,
        TableFeature.UNKNOWN_OR_GEO_TYPES: guards.UNKNOWN_OR_GEO,
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
    },
    Operation.REWRITE_POSITION_DELETE_FILES: {
        TableFeature.ENCRYPTED: guards.ENCRYPTED,
    },
    Operation.REWRITE_MANIFESTS: {
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

_NO_SKETCHES = OperationCapability(
    supported=False,
    reason="the local engine has no library for theta sketches, in which distinct values are counted: use engine spark "
    "or trino",
)


def local_capabilities(version: str) -> Capabilities:
    """Every setting of every operation that there is is honoured, at any value."""
    operations = {Operation.COMPUTE_TABLE_STATS: _NO_SKETCHES}
    for operation, model in SETTINGS_MODELS.items():
        if operation in operations:
            continue
        operations[operation] = OperationCapability(
            honoured=frozenset(field.alias or name for name, field in model.model_fields.items()),
            refused_features={feature.value: why for feature, why in _REFUSED_FEATURES[operation].items()},
            shares_groups=operation is Operation.REWRITE_DATA_FILES,
        )
    return Capabilities(engine="local", version=version, operations=operations)
