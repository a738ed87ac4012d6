"""Which engine carries out an operation: the one that the policy names, or for ``auto`` the cheapest that can."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from airflow_provider_floe.engines.capabilities import Capabilities, Verdict, judge
from airflow_provider_floe.health.report import TableFacts
from airflow_provider_floe.policies.model import EngineName, OperationSettings, Policy
from airflow_provider_floe.tables import Operation
from airflow_provider_floe.text import bytes_text

LOCAL_LIMIT_BYTES = 50 * 1024**3
"""Above this many bytes of data to rewrite, ``auto`` prefers a cluster to the worker's own process.

The other operations read metadata and list or delete files: what they cost does not grow with the bytes of the table.
"""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine for one item.

    :ivar engine: None when no engine may run it.
    :ivar reason: why this one, or in one line why none.
    :ivar refusals: reasons against every engine that was asked; empty when one was found.
    :ivar ignored: settings that the engine will not honour, as the policy allows.
    :ivar waits: none may run it now, but one that could not be probed might: worth trying again.
    """

    engine: str | None
    reason: str
    refusals: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    waits: bool = False


def choose_engine(
    operation: Operation,
    policy: Policy,
    settings: OperationSettings,
    facts: TableFacts,
    bytes_in: int,
    capabilities: Mapping[str, Capabilities],
    unavailable: Mapping[str, str],
    *,
    catalog: str | None = None,
) -> EngineChoice:
    """Hold the operation against the engines that are there.

    :param bytes_in: input bytes expected.
    :param unavailable: engines that could not be probed, with the reason.
    :param catalog: the table's, which not every engine may have access to.
    """
    ignore = policy.on_unsupported_setting == "ignore"
    verdicts = {
        name: judge(found, operation, settings, facts, ignore_unsupported=ignore, catalog=catalog)
        for name, found in capabilities.items()
    }
    wanted = policy.engine_for(operation)
    if wanted == EngineName.AUTO:
        return _auto(operation, bytes_in, verdicts, unavailable)
    return _named(wanted, operation, policy, verdicts, unavailable)


def _named(
    wanted: str,
    operation: Operation,
    policy: Policy,
    verdicts: Mapping[str, Verdict],
    unavailable: Mapping[str, str],
) -> EngineChoice:
    verdict = verdicts.get(wanted)
    if verdict is not None and verdict.allowed:
        return EngineChoice(wanted, f"named by policy {policy.name}", ignored=verdict.ignored)
    able = [name for name in _preference(verdicts, large=False) if verdicts[name].allowed]
    instead = f"{', '.join(able)} could run it" if able else "no other engine that is there could run it"
    if verdict is None:
        why = unavailable.get(wanted, "it is not configured")
        refusals: tuple[str, ...] = (f"engine {wanted} is not available: {why}", instead)
    else:
        refusals = (*(f"engine {wanted}: {refusal}" for refusal in verdict.refusals), instead)
    reason = f"engine {wanted}, named by policy {policy.name}, cannot run {operation}"
    return EngineChoice(None, reason, refusals, waits=verdict is None and wanted in unavailable)


def _auto(
    operation: Operation, bytes_in: int, verdicts: Mapping[str, Verdict], unavailable: Mapping[str, str]
) -> EngineChoice:
    large = operation is Operation.REWRITE_DATA_FILES and bytes_in > LOCAL_LIMIT_BYTES
    order = _preference(verdicts, large=large)
    able = [name for name in order if verdicts[name].allowed]
    missing = [f"engine {name} is not available: {unavailable[name]}" for name in sorted(unavailable)]
    refused = [f"engine {name}: {refusal}" for name in order for refusal in verdicts[name].refusals]
    if not able:
        none = (*refused, *missing) or ("no engine is configured",)
        return EngineChoice(None, f"no engine can run {operation} on this table", none, waits=bool(missing))
    # An engine that honours every setting goes before one that would ignore some.
    chosen = min(able, key=lambda name: (bool(verdicts[name].ignored), order.index(name)))
    size, limit = f"{bytes_text(bytes_in)} to read", bytes_text(LOCAL_LIMIT_BYTES)
    if chosen != EngineName.LOCAL:
        reason = f"auto: the cheapest engine that can run it, {size}"
    elif large:
        reason = f"auto: no other engine can run it, although {size} is above {limit}"
    elif operation is Operation.REWRITE_DATA_FILES:
        reason = f"auto: {size}; up to {limit} the local engine is the cheapest"
    else:
        reason = "auto: it rewrites no data, so the local engine is the cheapest"
    against = [
        f"{name}: {_why_not(name, verdicts, unavailable)}"
        for name in _before(chosen, _preference({*verdicts, *unavailable}, large=large))
    ]
    if large and chosen != EngineName.LOCAL and EngineName.LOCAL in verdicts:
        against.append(f"local: only up to {limit}")
    if against:
        reason = f"{reason}; not {', not '.join(against)}"
    return EngineChoice(chosen, reason, ignored=verdicts[chosen].ignored)


def _before(chosen: str, order: list[str]) -> list[str]:
    return order[: order.index(chosen)]


def _why_not(name: str, verdicts: Mapping[str, Verdict], unavailable: Mapping[str, str]) -> str:
    if name in verdicts:
        return "; ".join(verdicts[name].refusals or verdicts[name].ignored)
    return f"not available: {unavailable[name]}"


def _preference(engines: Collection[str], *, large: bool) -> list[str]:
    """Engines from the cheapest on; engines of third parties come last, by name."""
    order = [EngineName.LOCAL, EngineName.SPARK, EngineName.TRINO]
    if large:
        order = [EngineName.SPARK, EngineName.TRINO, EngineName.LOCAL]
    built_in = [str(name) for name in order if name in engines]
    return built_in + sorted(set(engines) - set(built_in))
