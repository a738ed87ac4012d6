"""What an engine can do, as probed, and how a policy's settings and a table's features are held against it. Pure."""

from __future__ import annotations

from datetime import timedelta

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
    :ivar shares_groups: several tasks can work on the file groups of one table, see
        :class:`~airflow_provider_floe.engines.sharing.SharingEngine`.
    """

    supported: bool = True
    reason: str = ""
    honoured: frozenset[str] = frozenset()
    refused: dict[str, str] = Field(default_factory=dict)
    refused_features: dict[str, str] = Field(default_factory=dict)
    shares_groups: bool = False


class CatalogAccess(Model):
    """How an engine gets at the tables of one catalog.

    :ivar refusal: why it cannot; empty when it can.
    :ivar minimum_seconds: by operation and setting (wire name), the least retention that it takes.
    """

    refusal: str = ""
    minimum_seconds: dict[Operation, dict[str, float]] = Field(default_factory=dict)


class Capabilities(Model):
    """What one engine, as it is there, can do.

    :ivar catalogs: by the names that policies use; None for an engine that works on every catalog.
    :ivar catalogs_setting: where catalogs are made known to the engine, for people.
    """

    engine: str
    version: str
    operations: dict[Operation, OperationCapability]
    catalogs: dict[str, CatalogAccess] | None = None
    catalogs_setting: str = ""

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
    catalog: str | None = None,
) -> Verdict:
    """Hold settings and table against an engine's capabilities; each refusal names setting or feature, and why.

    :param catalog: the table's, by the name that policies use; None asks nothing of it.
    """
    capability = capabilities.operation(operation)
    if not capability.supported:
        return Verdict(refusals=(capability.reason or f"{capabilities.engine} cannot do {operation}",))
    refusals = [
        f"table feature {feature}: {capability.refused_features[feature]}"
        for feature in facts.features
        if feature in capability.refused_features
    ]
    if catalog is not None:
        refusals += _catalog_refusals(capabilities, operation, settings, catalog)
    unsupported = tuple(refused_settings(capability, settings).values())
    if ignore_unsupported:
        return Verdict(refusals=tuple(refusals), ignored=unsupported)
    return Verdict(refusals=(*refusals, *unsupported))


def refused_settings(capability: OperationCapability, settings: OperationSettings) -> dict[str, str]:
    """The settings that differ from their default and cannot be honoured: by wire name, value and reason."""
    found = {}
    for name, field in type(settings).model_fields.items():
        wire = field.alias or name
        default = field.get_default(call_default_factory=True, validated_data={})
        if wire in capability.refused and getattr(settings, name) != default:
            found[wire] = f"setting {wire}={getattr(settings, name)!r}: {capability.refused[wire]}"
    return found


def _catalog_refusals(
    capabilities: Capabilities, operation: Operation, settings: OperationSettings, catalog: str
) -> list[str]:
    if capabilities.catalogs is None:
        return []
    access = capabilities.catalogs.get(catalog)
    if access is None:
        known = ", ".join(sorted(capabilities.catalogs)) or "none"
        return [f"it knows no catalog {catalog!r} (only {known}): add it to {capabilities.catalogs_setting}"]
    if access.refusal:
        return [access.refusal]
    minimums = access.minimum_seconds.get(operation, {})
    refusals = []
    for name, field in type(settings).model_fields.items():
        wire = field.alias or name
        if wire in minimums and _seconds(getattr(settings, name)) < minimums[wire]:
            least = minimums[wire] / timedelta(days=1).total_seconds()
            refusals.append(
                f"setting {wire}={getattr(settings, name)!s} is below the minimum retention of {least:g} days that the "
                f"server has for catalog {catalog!r}: raise the setting, or lower the minimum on the server"
            )
    return refusals


def _seconds(value: timedelta | int) -> float:
    """Of a retention, which is a duration or a number of days."""
    return (value if isinstance(value, timedelta) else timedelta(days=value)).total_seconds()
