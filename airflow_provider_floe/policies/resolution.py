"""Which policy governs which operation on a table, with the explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from airflow_provider_floe.errors import PolicyDisabled, PolicyDoesNotMatch, PolicyNotFound
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policies.patterns import InvalidPattern, TablePattern
from airflow_provider_floe.policies.schedules import is_scheduled
from airflow_provider_floe.tables import Operation, TableRef

PRIORITY_WEIGHT = 1_000
"""Effective priority = priority * 1000 + specificity, so specificity only decides between equal priorities."""
_NAMED_AT_MOST = 5
_OFF = ("false", "no", "off", "0")
_last: tuple[tuple[Policy, ...], PolicyIndex] | None = None


@dataclass(frozen=True, slots=True)
class Governance:
    """Which policy governs one operation on one table.

    :ivar policy: None when no enabled policy that matches has a settings object for the operation, or when the table's
        owner opted out by a table property. A governor whose settings say ``enabled: false`` is named here.
    :ivar explanation: "governed by X because ...; also matched by Y, Z".
    """

    policy: Policy | None
    explanation: str


@dataclass(frozen=True, slots=True)
class _Ranked:
    policy: Policy
    pattern: TablePattern
    effective: int

    @property
    def label(self) -> str:
        return f"{self.policy.name} ({self.effective})"


def effective_priority(policy: Policy) -> int:
    """``priority * 1000 + specificity of the pattern``.

    :raises InvalidPattern: when the policy's pattern cannot be read; the message names the policy.
    """
    return policy.priority * PRIORITY_WEIGHT + _pattern(policy).specificity


class PolicyIndex:
    """Policies compiled once, to be asked about many tables. Immutable and thread-safe.

    :raises InvalidPattern: when a policy's pattern cannot be read; the message names the policy.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        ranked = [_Ranked(policy, _pattern(policy), effective_priority(policy)) for policy in policies]
        ranked.sort(key=lambda one: (-one.effective, one.policy.name))
        self.ranked = tuple(ranked)
        self._of_namespace = lru_cache(maxsize=4096)(self._candidates)

    def _candidates(self, catalog: str, namespace: tuple[str, ...]) -> tuple[_Ranked, ...]:
        return tuple(one for one in self.ranked if one.pattern.may_match_namespace(catalog, namespace))

    def matching(self, table: TableRef) -> list[_Ranked]:
        """Policies whose pattern matches, disabled ones included, highest effective priority first."""
        candidates = self._of_namespace(table.catalog, table.namespace)
        return [one for one in candidates if one.pattern.matches_within_namespace(table)]

    def resolve(self, table: TableRef, properties: Mapping[str, str] | None = None) -> dict[Operation, Governance]:
        """The governor of every operation on the table; see :func:`resolve`."""
        matching = self.matching(table)
        return {operation: _govern(operation, table, matching, properties or {}) for operation in Operation}


def resolve(
    policies: Sequence[Policy] | PolicyIndex, table: TableRef, properties: Mapping[str, str] | None = None
) -> dict[Operation, Governance]:
    """The one governor of every operation on a table.

    Of the enabled policies that match the table and whose document has the operation's settings object, the one with
    the highest effective priority governs; ties go to the name that sorts first.

    :param policies: all policies, disabled ones included. For many tables pass the same tuple, or a
        :class:`PolicyIndex`, so that patterns are compiled once.
    :param properties: the table's properties; ``floe.enabled=false`` or ``floe.<operation>.enabled=false`` opts out.
    :raises InvalidPattern: when a policy's pattern cannot be read.
    """
    index = _index(policies)
    return index.resolve(table, properties)


def governing(
    policies: Sequence[Policy] | PolicyIndex,
    table: TableRef,
    named: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> dict[Operation, Governance]:
    """Like :func:`resolve`, for a run over one table, which fails when nothing can govern the table.

    :param named: only this policy counts, whatever the priority of others.
    :raises PolicyNotFound: no policy of that name; or no policy matches the table or configures any operation.
    :raises PolicyDisabled: the named policy, or every policy that matches the table, is disabled.
    :raises PolicyDoesNotMatch: the named policy is about other tables.
    """
    index = _index(policies)
    matching = index.matching(table)
    if named is not None:
        matching = [_named(index, named, table)]
    elif not matching:
        raise PolicyNotFound(
            f"no policy matches table {table} (policies: {_names(index.ranked)}); "
            "write a policy whose tablePattern matches it"
        )
    elif not any(one.policy.enabled for one in matching):
        raise PolicyDisabled(
            f"every policy that matches table {table} is disabled: {_names(matching)}; enable one of them"
        )
    if not any(one.policy.enabled and one.policy.operations for one in matching):
        raise PolicyNotFound(
            f"no policy configures an operation for table {table}: "
            f"{_names([one for one in matching if one.policy.enabled])} has no settings object; add one, "
            f"for example {Operation.REWRITE_DATA_FILES.policy_key}: {{}}"
        )
    return {operation: _govern(operation, table, matching, properties or {}) for operation in Operation}


def shadow_warnings(policies: Sequence[Policy]) -> list[str]:
    """Where a policy that runs an operation only on demand takes tables away from another policy's schedule.

    Decided from the patterns alone: a pair is named when some table *may* match both, so a warning can be needless
    where one of them holds a regex, but none is missing.
    """
    ranked = PolicyIndex([policy for policy in policies if policy.enabled]).ranked
    warnings: list[str] = []
    for operation in Operation:
        for position, one in enumerate(ranked):
            settings = one.policy.settings(operation)
            if settings is None or not settings.enabled or is_scheduled(one.policy, operation):
                continue
            warnings += [
                f"{one.policy.name} governs {operation.value} without an enabled schedule and outranks {other.label} "
                f"with {one.effective}: tables that match both {one.pattern.text!r} and {other.pattern.text!r} are "
                f"never maintained on {other.policy.name}'s schedule; give {one.policy.name} a "
                f"{operation.policy_key}Schedule, or lower its priority"
                for other in ranked[position + 1 :]
                if is_scheduled(other.policy, operation) and one.pattern.may_overlap(other.pattern)
            ]
    return sorted(warnings)


def _index(policies: Sequence[Policy] | PolicyIndex) -> PolicyIndex:
    """The index of these policies; the one of the last tuple is kept, as callers ask about many tables in a row."""
    global _last
    if isinstance(policies, PolicyIndex):
        return policies
    if _last is not None and _last[0] is policies:
        return _last[1]
    index = PolicyIndex(policies)
    if isinstance(policies, tuple):
        _last = (policies, index)
    return index


def _pattern(policy: Policy) -> TablePattern:
    try:
        return TablePattern.parse(policy.table_pattern)
    except InvalidPattern as error:
        raise InvalidPattern(f"policy {policy.name!r}: tablePattern: {error}") from None


def _named(index: PolicyIndex, named: str, table: TableRef) -> _Ranked:
    found = next((one for one in index.ranked if one.policy.name == named), None)
    if found is None:
        raise PolicyNotFound(f"there is no policy named {named!r}; policies: {_names(index.ranked)}")
    if not found.policy.enabled:
        raise PolicyDisabled(f"policy {named!r} is disabled; set enabled: true in it, or name another one")
    if not found.pattern.matches(table):
        raise PolicyDoesNotMatch(
            f"policy {named!r} does not match table {table}: its tablePattern {found.pattern.text!r} is about "
            f"{found.pattern.explain()}"
        )
    return found


def _govern(
    operation: Operation, table: TableRef, matching: Sequence[_Ranked], properties: Mapping[str, str]
) -> Governance:
    enabled = [one for one in matching if one.policy.enabled]
    able = [one for one in enabled if one.policy.settings(operation) is not None]
    disabled = [one for one in matching if not one.policy.enabled and one.policy.settings(operation)]
    also_disabled = f"; disabled, so not asked: {_names(disabled)}" if disabled else ""
    opted_out = _opt_out(operation, properties)
    if not able:
        if enabled:
            why = f"matched by {_names(enabled, label=True)}, but none has {operation.policy_key} settings"
        else:
            why = f"no enabled policy matches {table}"
        return Governance(None, f"not governed: {why}{also_disabled}")
    governor, *others = able
    if opted_out:
        return Governance(
            None,
            f"not governed: the table's owner opted out by table property {opted_out}; "
            f"{governor.policy.name} would govern it",
        )
    text = (
        f"governed by {governor.policy.name} because its pattern {governor.pattern.text!r} matches with effective "
        f"priority {governor.effective} (priority {governor.policy.priority}, specificity "
        f"{governor.pattern.specificity})"
    )
    settings = governor.policy.settings(operation)
    if settings is not None and not settings.enabled:
        text += f", and switches it off ({operation.policy_key}.enabled is false)"
    if others:
        text += f"; also matched by {_names(others, label=True)}"
        if others[0].effective == governor.effective:
            text += "; the tie goes to the name that sorts first"
    return Governance(governor.policy, text + also_disabled)


def _opt_out(operation: Operation, properties: Mapping[str, str]) -> str | None:
    for key in ("floe.enabled", f"floe.{operation.value}.enabled", f"floe.{operation.policy_key}.enabled"):
        value = properties.get(key)
        if value is not None and value.strip().lower() in _OFF:
            return f"{key}={value}"
    return None


def _names(ranked: Sequence[_Ranked], *, label: bool = False) -> str:
    """The first few names, with their effective priorities when asked; a fleet's explanations must stay short."""
    shown = [one.label if label else one.policy.name for one in ranked[:_NAMED_AT_MOST]]
    more = len(ranked) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more else "")
