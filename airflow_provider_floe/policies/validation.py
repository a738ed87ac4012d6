"""Checks one policy document: every key known, every value right, every pattern, schedule and engine usable."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin
from zoneinfo import available_timezones

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel, to_snake

from airflow_provider_floe.policies.documents import join
from airflow_provider_floe.policies.model import EngineName, Policy
from airflow_provider_floe.policies.patterns import InvalidPattern, TablePattern
from airflow_provider_floe.policies.schedules import InvalidSchedule, SlotSchedule
from airflow_provider_floe.tables import Operation

_NO_VALUE = object()
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field.

    :ivar field: dotted wire path, for example ``rewriteDataFiles.strategy``; empty for the document as a whole.
    :ivar value: as written, shortened; None when the field is missing or holds other fields.
    :ivar suggestion: the nearest valid name.
    """

    field: str
    value: str | None
    reason: str
    suggestion: str | None = None

    def __str__(self) -> str:
        where = self.field or "document"
        value = "" if self.value is None else f" = {self.value}"
        suggestion = "" if self.suggestion is None else f"; did you mean {self.suggestion!r}?"
        return f"{where}{value}: {self.reason}{suggestion}"


@dataclass(slots=True)
class _Normalised:
    """A document with camelCase keys only.

    :ivar written: wire path -> path as written, where they differ.
    """

    problems: list[FieldProblem] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)


def check_policy(
    document: Mapping[str, Any], *, engines: Collection[str] | None = None, default_timezone: str = "UTC"
) -> tuple[Policy | None, list[FieldProblem], dict[str, str]]:
    """The policy of a document, or everything that is wrong with it. Raises nothing for its content.

    :param engines: known engine names; None accepts any.
    :param default_timezone: for schedules that name none.
    :return: the policy (None when there are problems), the problems, and wire path -> path as written.
    """
    found = _Normalised()
    data = _normalise(document, Policy, "", "", found)
    policy: Policy | None = None
    try:
        policy = Policy.model_validate(data, strict=True)
    except ValidationError as error:
        known = {problem.field for problem in found.problems}
        found.problems += [
            problem for problem in map(_of_pydantic, error.errors(include_url=False)) if problem.field not in known
        ]
    if policy is not None:
        found.problems += _semantic_problems(policy, engines, default_timezone)
    return (None if found.problems else policy), found.problems, found.written


def warnings_of(policy: Policy) -> list[FieldProblem]:
    """What is allowed but without effect."""
    found = []
    for operation in Operation:
        if policy.settings(operation) is None and to_snake(operation.policy_key) in policy.model_fields_set:
            reason = (
                f"is empty, so the policy does not govern the operation; write {operation.policy_key}: {{}} to do so"
            )
            found.append(FieldProblem(operation.policy_key, None, reason))
        schedule, key = policy.schedule(operation), f"{operation.policy_key}Schedule"
        if schedule is None:
            continue
        if policy.settings(operation) is None:
            reason = f"has no effect without {operation.policy_key} settings; add {operation.policy_key}: {{}}"
            found.append(FieldProblem(key, None, reason))
        elif schedule.enabled and schedule.interval is None and schedule.cron_expression is None:
            reason = "has neither interval nor cronExpression, so the operation runs only on demand"
            found.append(FieldProblem(key, None, reason))
        elif schedule.interval is not None and schedule.cron_expression is not None:
            value = shown(schedule.cron_expression)
            found.append(FieldProblem(f"{key}.cronExpression", value, "is not used, because interval wins"))
    if not policy.operations and not found:
        reason = "governs nothing; add settings of an operation, for example rewriteDataFiles: {}"
        found.append(FieldProblem("", None, reason))
    return found


def shown(value: Any) -> str | None:
    """A value for a message, shortened; None for what holds other values."""
    if value is None or isinstance(value, dict | list):
        return None
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is written most like this one, without regard to case and underscores."""
    folded = {one.lower().replace("_", ""): one for one in known}
    found = difflib.get_close_matches(name.lower().replace("_", ""), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _normalise(data: Mapping[str, Any], model: type[BaseModel], path: str, raw: str, found: _Normalised) -> Any:
    """Copy a mapping with wire names; what is unknown or written twice is left out, with a problem."""
    by_wire, by_name = _fields(model)
    result: dict[str, Any] = {}
    first: dict[str, str] = {}
    for key, value in data.items():
        wire = by_name.get(key, key)
        if wire not in by_wire:
            suggestion = nearest(key, by_wire)
            if suggestion is not None and "_" in key:
                suggestion = to_snake(suggestion)
            found.problems.append(FieldProblem(join(path, key), shown(value), "unknown field", suggestion))
        elif wire in first:
            reason = f"stands twice, as {first[wire]} and as {key}: remove one of them"
            found.problems.append(FieldProblem(join(path, key), shown(value), reason))
        else:
            first[wire] = key
            here, raw_here = join(path, wire), join(raw, key)
            if here != raw_here:
                found.written[here] = raw_here
            result[wire] = _normalise_value(value, by_wire[wire], here, raw_here, found)
    return result


@lru_cache(maxsize=64)
def _fields(model: type[BaseModel]) -> tuple[dict[str, Any], dict[str, str]]:
    """A model's annotations by wire name, and its wire names by field name."""
    by_name = {name: to_camel(name) for name in model.model_fields}
    return {by_name[name]: info.annotation for name, info in model.model_fields.items()}, by_name


def _normalise_value(value: Any, annotation: Any, path: str, raw: str, found: _Normalised) -> Any:
    annotation = _required(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(value, Mapping):
        return _normalise(value, annotation, path, raw, found)
    arguments = get_args(annotation)
    if get_origin(annotation) is list and isinstance(value, list):
        return [
            _normalise_value(item, arguments[0], f"{path}[{index}]", f"{raw}[{index}]", found)
            for index, item in enumerate(value)
        ]
    if get_origin(annotation) is dict and arguments[0] is Operation and isinstance(value, Mapping):
        return _normalise_operations(value, path, raw, found)
    return value


def _normalise_operations(data: Mapping[str, Any], path: str, raw: str, found: _Normalised) -> dict[str, Any]:
    names = {name: one.value for one in Operation for name in (one.value, one.policy_key)}
    result: dict[str, Any] = {}
    first: dict[str, str] = {}
    for key, value in data.items():
        if key not in names:
            found.problems.append(FieldProblem(join(path, key), shown(value), "unknown operation", nearest(key, names)))
        elif names[key] in first:
            reason = f"stands twice, as {first[names[key]]} and as {key}: remove one of them"
            found.problems.append(FieldProblem(join(path, key), shown(value), reason))
        else:
            first[names[key]] = key
            result[names[key]] = value
            if key != names[key]:
                found.written[join(path, names[key])] = join(raw, key)
    return result


def _required(annotation: Any) -> Any:
    """The type itself, of a field that may be None or carries metadata."""
    while get_origin(annotation) in (Union, types.UnionType, Annotated):
        members = [one for one in get_args(annotation) if one is not type(None)]
        if get_origin(annotation) is not Annotated and len(members) != 1:
            return annotation
        annotation = members[0]
    return annotation


def _of_pydantic(error: Any) -> FieldProblem:
    path = ""
    for step in error["loc"]:
        path = f"{path}[{step}]" if isinstance(step, int) else join(path, str(step).removesuffix(".[key]"))
    message = error["msg"].removeprefix("Value error, ").replace("\n", " ")
    value = error.get("input", _NO_VALUE)
    if error["type"] == "missing":
        return FieldProblem(path, None, "is missing")
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return FieldProblem(path, shown(value), f"must be one of {', '.join(choices)}", nearest(str(value), choices))
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        message = "must be text: put it in quotes"
    if isinstance(value, bool):
        message += " (YAML reads yes, no, on and off as true and false)"
    if error["type"] == "value_error" and shown(value) is not None:
        message = message.removeprefix(f"{value!r} ")
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "must be a mapping of fields"
    return FieldProblem(path, shown(value), message[:1].lower() + message[1:])


def _semantic_problems(policy: Policy, engines: Collection[str] | None, default_timezone: str) -> list[FieldProblem]:
    found = []
    try:
        TablePattern.parse(policy.table_pattern)
    except InvalidPattern as error:
        found.append(FieldProblem("tablePattern", shown(policy.table_pattern), str(error)))
    for operation in Operation:
        key = operation.policy_key
        schedule, settings = policy.schedule(operation), policy.settings(operation)
        if schedule is not None:
            found += _schedule_problems(f"{key}Schedule", schedule, default_timezone)
        if settings is not None and settings.engine is not None:
            found += _engine_problems(f"{key}.engine", settings.engine, engines)
    return found + _engine_problems("engine", policy.engine, engines)


def _schedule_problems(path: str, schedule: Any, default_timezone: str) -> list[FieldProblem]:
    problems = {}
    for part in ("interval", "cron_expression"):  # both are checked, though only one is used
        other = "cron_expression" if part == "interval" else "interval"
        alone = schedule.model_copy(update={other: None})
        if getattr(alone, part) is None and getattr(schedule, other) is not None:
            continue
        try:
            SlotSchedule.of(alone, default_timezone)
        except InvalidSchedule as error:
            if error.value is not None:
                zone = nearest(str(error.value), sorted(available_timezones())) if error.field == "timezone" else None
                problems[error.field] = FieldProblem(join(path, error.field), shown(error.value), error.reason, zone)
    return list(problems.values())


def _engine_problems(path: str, engine: str, engines: Collection[str] | None) -> list[FieldProblem]:
    known = None if engines is None else sorted({*engines, EngineName.AUTO.value})
    if known is None or engine in known:
        return []
    return [
        FieldProblem(path, shown(engine), f"is not an engine: use one of {', '.join(known)}", nearest(engine, known))
    ]
