"""Every setting is honoured, refused, or ignored with a report, and the page that says which is what the code says."""

from __future__ import annotations

import ast
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_floe.engines.capabilities import Capabilities, judge
from airflow_provider_floe.health.report import TableFacts
from airflow_provider_floe.policies.model import SETTINGS_MODELS, OperationSettings
from airflow_provider_floe.tables import Operation

REPOSITORY = Path(__file__).parents[3]
MATRIX = runpy.run_path(str(REPOSITORY / "docs/engines_matrix.py"))
COLUMNS: dict[str, Capabilities] = MATRIX["columns"]()
COMMON = {field.alias or name for name, field in OperationSettings.model_fields.items()}
FACTS = TableFacts(uuid="u", location="s3://b/t", metadata_location="s3://b/t/metadata/1.json", format_version=2)

OTHER_VALUES: dict[str, dict[str, Any]] = {
    "strategy": {"strategy": "SORT"},
    "sortOrder": {"strategy": "SORT", "sortOrder": ["id"]},
    "zOrderColumns": {"strategy": "ZORDER", "zOrderColumns": ["id"]},
    "targetFileSizeBytes": {"targetFileSizeBytes": 1},
    "maxFileGroupSizeBytes": {"maxFileGroupSizeBytes": 1},
    "maxConcurrentFileGroupRewrites": {"maxConcurrentFileGroupRewrites": 1},
    "partialProgressEnabled": {"partialProgressEnabled": True},
    "partialProgressMaxCommits": {"partialProgressMaxCommits": 1},
    "partialProgressMaxFailedCommits": {"partialProgressMaxFailedCommits": 1},
    "filter": {"filter": "id > 1"},
    "rewriteJobOrder": {"rewriteJobOrder": "BYTES_ASC"},
    "useStartingSequenceNumber": {"useStartingSequenceNumber": False},
    "deleteFileThreshold": {"deleteFileThreshold": 2},
    "removeDanglingDeletes": {"removeDanglingDeletes": True},
    "outputSpecId": {"outputSpecId": 1},
    "columns": {"columns": ["id"]},
    "minChangedShare": {"minChangedShare": 0},
    "minInputFiles": {"minInputFiles": 2},
    "maxDeleteFiles": {"maxDeleteFiles": 1},
    "maxDeleteBytes": {"maxDeleteBytes": 1},
    "maxDeleteShare": {"maxDeleteShare": 0.5},
    "quarantine": {"quarantine": "P7D"},
    "retainLast": {"retainLast": 1},
    "maxSnapshotAge": {"maxSnapshotAge": "P1D"},
    "cleanExpiredMetadata": {"cleanExpiredMetadata": True},
    "expireSnapshotId": {"expireSnapshotId": 1},
    "allowBelowTableRetention": {"allowBelowTableRetention": True},
    "retentionPeriodInDays": {"retentionPeriodInDays": 9},
    "location": {"location": "s3://b/t/data"},
    "prefixMismatchMode": {"prefixMismatchMode": "DELETE"},
    "equalSchemes": {"equalSchemes": {"a": "b"}},
    "equalAuthorities": {"equalAuthorities": {"a": "b"}},
    "excludePatterns": {"excludePatterns": ["*.tmp"]},
    "specId": {"specId": 1},
    "stagingLocation": {"stagingLocation": "s3://b/staging"},
    "sortBy": {"sortBy": ["part"]},
    "rewriteIf": {"rewriteIf": {"length": 1}},
}
"""For each setting, a document in which it is not at its default."""

CELLS = [
    (operation, field.alias or name)
    for operation, model in SETTINGS_MODELS.items()
    for name, field in model.model_fields.items()
    if (field.alias or name) not in COMMON
]


def test_the_page_is_what_the_code_says() -> None:
    assert MATRIX["PAGE"].read_text() == MATRIX["page"](), "run: python docs/engines_matrix.py"


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("column", COLUMNS)
def test_no_setting_is_without_a_state(column: str, operation: Operation) -> None:
    capability = COLUMNS[column].operation(operation)
    if not capability.supported:
        assert "use engine" in capability.reason
        return
    wires = {field.alias or name for name, field in SETTINGS_MODELS[operation].model_fields.items()}
    assert capability.honoured | capability.refused.keys() == wires
    assert not capability.honoured & capability.refused.keys()
    assert not capability.refused.keys() & COMMON
    assert all("use " in reason or "upgrade" in reason for reason in capability.refused.values())


@pytest.mark.parametrize(("operation", "wire"), CELLS)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_plan_refuses_a_setting_by_name_or_says_that_it_is_ignored(
    column: str, operation: Operation, wire: str
) -> None:
    capabilities = COLUMNS[column]
    capability = capabilities.operation(operation)
    settings = SETTINGS_MODELS[operation].model_validate(OTHER_VALUES[wire])
    refused = judge(capabilities, operation, settings, FACTS)
    ignored = judge(capabilities, operation, settings, FACTS, ignore_unsupported=True)
    if not capability.supported:
        assert refused == ignored
        assert refused.refusals == (capability.reason,)
    elif wire in capability.refused:
        (said,) = (text for text in refused.refusals if text.startswith(f"setting {wire}="))
        assert said.endswith(capability.refused[wire])
        assert ignored.allowed
        assert said in ignored.ignored
    else:
        assert not [text for text in (*refused.refusals, *ignored.ignored) if f"setting {wire}=" in text]


@pytest.mark.parametrize(("operation", "wire"), CELLS)
def test_what_is_honoured_is_seen_on_real_servers(operation: Operation, wire: str) -> None:
    """A setting that no case of the conformance suite sets is held by nothing."""
    assert wire in _settings_in_cases()[operation]


@cache
def _settings_in_cases() -> dict[Operation, set[str]]:
    """By operation, the keys of the settings that cases of the conformance suite hand to an engine."""
    names = {
        "REWRITE": Operation.REWRITE_DATA_FILES,
        "DELETES": Operation.REWRITE_POSITION_DELETE_FILES,
        "MANIFESTS": Operation.REWRITE_MANIFESTS,
        "STATISTICS": Operation.COMPUTE_TABLE_STATS,
        "EXPIRE": Operation.EXPIRE_SNAPSHOTS,
        "ORPHANS": Operation.REMOVE_ORPHAN_FILES,
    }
    found: dict[Operation, set[str]] = {operation: set() for operation in Operation}
    for file in (REPOSITORY / "tests/services/conformance").glob("test_*.py"):
        module = ast.parse(file.read_text())
        assigned = {name: _strings(node) for node in module.body for name in _assigned(node)}
        for test in module.body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                used = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
                keys = _strings(test).union(*(assigned[name] for name in used & assigned.keys()))
                for name in used & names.keys():
                    found[names[name]] |= keys
    return found


def _assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _strings(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
