"""What an engine can do, as probed, and how a policy's settings and a table's features are held against it. Pure."""

from __future__ import annotations

from pydantic import Field

from airflow_provider_floe.health.report import Model, TableFacts
from airflow_provider_floe.iceberg.features import TableFeature as TableFeature
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation


class OperationCapability(Model):
    """One operation on one engine.

    :ivar honoured: settings (wire names) that the engine honours at any value.
    :ivar refused: settings that it cannot honour when they differ from their default, with the reason.
    :ivar refused_features: table features that it cannot handle, with the reason and which engine can.
    """

    supported: bool = True
    reason: str = ""
    honoured: frozenset[str] = frozenset()
    refused: dict[str, str] = Field(default_factory=dict)
    refused_features: dict[str, str] = Field(default_factory=dict)


class Capabilities(Model):
    """What one engine, as it is there, can do."""

    engine: str
    version: str
    operations: dict[Operation, OperationCapability]

    def operation(self, operation: Operation) -> OperationCapability:
        """The capability, ``supported=False`` where the engine does not know the operation."""
        return self.operations.get(
            operation, OperationCapability(supported=False, reason=f"{self.engine} cannot do {operation}")
        )


class Verdict(Model):
    """Whether an engine may run an operation with these settings on this table.

    :ivar refusals: reasons against it; empty means that it may.
    :ivar ignored: settings that will not be honoured, as the policy allows by ``onUnsupportedSetting: ignore``.
    """

    refusals: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """No reason against it."""
        return not self.refusals


def judge(
    capabilities: Capabilities,
    operation: Operation,
    settings: OperationSettings,
    facts: TableFacts,
    *,
    ignore_unsupported: bool = False,
) -> Verdict:
    """Hold settings and table against an engine's capabilities; each refusal names setting or feature, and why."""
    capability = capabilities.operation(operation)
    if not capability.supported:
        return Verdict(refusals=(capability.reason or f"{capabilities.engine} cannot do {operation}",))
    refusals = [
        f"table feature {feature}: {capability.refused_features[feature]}"
        for feature in facts.features
        if feature in capability.refused_features
    ]
    ignored: list[str] = []
    for name, field in type(settings).model_fields.items():
        wire = field.alias or name
        if wire not in capability.refused or getattr(settings, name) == field.get_default(
            call_default_factory=True, validated_data={}
        ):
            continue
        text = f"setting {wire}={getattr(settings, name)!r}: {capability.refused[wire]}"
        (ignored if ignore_unsupported else refusals).append(text)
    return Verdict(refusals=tuple(refusals), ignored=tuple(ignored))
