"""Writes engines-matrix.md, the table of what each engine honours, from the code that decides it.

python docs/engines_matrix.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from airflow_provider_floe.engines.capabilities import Capabilities, OperationCapability
from airflow_provider_floe.engines.local.capabilities import local_capabilities
from airflow_provider_floe.engines.spark.capabilities import ACTIONS, OPTIONS, WANTED, spark_capabilities
from airflow_provider_floe.engines.trino.capabilities import (
    ANALYSIS,
    CALLS,
    CLEAN_METADATA,
    RETAIN_LAST,
    TARGET_SIZE,
    operation_capabilities,
)
from airflow_provider_floe.policies.model import SETTINGS_MODELS, OperationSettings
from airflow_provider_floe.tables import Operation

PAGE = Path(__file__).with_name("engines-matrix.md")

_COMMON = {field.alias or name for name, field in OperationSettings.model_fields.items()}
_NEWER = {RETAIN_LAST, CLEAN_METADATA}


def columns() -> dict[str, Capabilities]:
    """What each engine can do in the versions that the tests run, by the heading of its column."""
    return {
        "local": local_capabilities("any"),
        "Spark 3.5 by spark-submit": _spark(WANTED, OPTIONS, ACTIONS, java=True),
        "Spark 4.1 by Spark Connect": _spark(WANTED, (), (), java=False),
        "Trino 476": _trino(frozenset(CALLS) - _NEWER, {TARGET_SIZE, ANALYSIS}),
        "Trino 483": _trino(CALLS, {ANALYSIS}),
    }


def page() -> str:
    """The whole page."""
    found = columns()
    tables = (_operation(each, {name: one.operation(each) for name, one in found.items()}) for each in Operation)
    return "\n\n".join([_INTRODUCTION, *tables, _dependent()]) + "\n"


_INTRODUCTION = """# What each engine honours

<!-- Written by docs/engines_matrix.py; change the code, then run it. -->

Every setting of a policy is in one of three states on an engine. **yes**: it is honoured, at any value. **no**: where
it is not at its default, the plan refuses the operation on that engine, and names setting, value and reason. With the
policy's `onUnsupportedSetting: ignore`, a setting with **no** is left out instead, and plan and record say so. There is
no fourth state: nothing is left out in silence. What a table must not have for an engine to work on it is refused
whatever the policy says.

The columns are the versions that the tests hold this page against. What is there is found out by asking each server,
not by its version: `airflow floe plan` tells what holds for yours. Spark behind Livy is as by spark-submit. `enabled`,
`engine` and `triggerConditions` belong to the plan and hold on every engine."""


def _operation(operation: Operation, found: Mapping[str, OperationCapability]) -> str:
    notes: dict[str, int] = {}
    wires = [field.alias or name for name, field in SETTINGS_MODELS[operation].model_fields.items()]
    features = sorted({feature for one in found.values() for feature in one.refused_features})
    rows = [
        _row("the operation", [_cell("" if one.supported else one.reason, notes) for one in found.values()]),
        *(
            _row(f"`{wire}`", [_of_operation(one, one.refused, wire, notes) for one in found.values()])
            for wire in wires
            if wire not in _COMMON
        ),
        *(
            _row(f"tables: {name}", [_of_operation(one, one.refused_features, name, notes) for one in found.values()])
            for name in features
        ),
    ]
    lines = [
        f"## {operation}",
        "",
        _row("", found),
        "|" + "---|" * (len(found) + 1),
        *rows,
        "",
        *(f"{number}. {reason}" for reason, number in notes.items()),
    ]
    return "\n".join(lines).rstrip()


def _of_operation(capability: OperationCapability, refused: Mapping[str, str], name: str, notes: dict[str, int]) -> str:
    return _cell(refused.get(name, ""), notes) if capability.supported else ""


def _cell(refusal: str, notes: dict[str, int]) -> str:
    return f"no ({notes.setdefault(refusal, len(notes) + 1)})" if refusal else "yes"


def _row(head: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((head, *cells))} |"


def _dependent() -> str:
    """What is refused where a server lacks something that newer ones have."""
    lines = [
        "## What depends on the server",
        "",
        "| engine | where the server lacks | refused are |",
        "|---|---|---|",
    ]
    lines += [_row("spark", cells) for cells in _spark_dependent()]
    lines += [_row("trino", cells) for cells in _trino_dependent()]
    lines += [
        "",
        "Least retention, known when the plan is made: one day for `retentionPeriodInDays` on every engine; on Trino",
        "also what the server asks for by `iceberg.expire-snapshots.min-retention` and",
        "`iceberg.remove-orphan-files.min-retention`, or by the session properties of the connection.",
    ]
    return "\n".join(lines)


def _spark_dependent() -> Iterable[tuple[str, str]]:
    full = _spark(WANTED, OPTIONS, ACTIONS, java=True)
    for procedure, arguments in WANTED.items():
        for argument in arguments:
            left = {**WANTED, procedure: {name: value for name, value in arguments.items() if name != argument}}
            yield f"`{procedure}`: argument `{argument}`", _lost(full, _spark(left, OPTIONS, ACTIONS, java=True))
    for option in OPTIONS:
        lost = _lost(full, _spark(WANTED, [one for one in OPTIONS if one != option], ACTIONS, java=True))
        yield f"`rewrite_data_files`: option `{option}`", lost
    for action in ACTIONS:
        lost = _lost(full, _spark(WANTED, OPTIONS, [one for one in ACTIONS if one != action], java=True))
        yield f"`RewriteManifests.{action}` (Java)", lost


def _trino_dependent() -> Iterable[tuple[str, str]]:
    properties = {TARGET_SIZE, ANALYSIS}
    full = _trino(CALLS, properties)
    for call in CALLS:
        yield f"`{call}`", _lost(full, _trino(frozenset(CALLS) - {call}, properties))
    for name in sorted(properties):
        yield f"session property `{name}`", _lost(full, _trino(CALLS, properties - {name}))


def _lost(full: Capabilities, less: Capabilities) -> str:
    lost = []
    for operation, capability in full.operations.items():
        other = less.operation(operation)
        if capability.supported and not other.supported:
            lost.append(f"{operation} as a whole")
        else:
            lost += [f"`{wire}` of {operation}" for wire in sorted(other.refused.keys() - capability.refused.keys())]
    return ", ".join(lost)


def _spark(
    wanted: Mapping[str, Mapping[str, object]], options: Iterable[str], actions: Iterable[str], *, java: bool
) -> Capabilities:
    found = {
        "version": "",
        "catalogs": {},
        "arguments": {procedure: list(arguments) for procedure, arguments in wanted.items()},
        "missing": {},
        "options": list(options),
        "actions": list(actions),
    }
    return spark_capabilities(found, java=java, route="", connection="", catalogs={})


def _trino(calls: Iterable[str], properties: Iterable[str]) -> Capabilities:
    operations = operation_capabilities(frozenset(calls), frozenset(properties))
    return Capabilities(engine="trino", version="", operations=operations)


if __name__ == "__main__":
    PAGE.write_text(page())
