"""The exported JSON Schema agrees with the loader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from airflow_provider_floe.policies.json_schema import policy_json_schema

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "policies"
GOOD: dict[str, Any] = {"name": "a", "tablePattern": "*"}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = policy_json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("file", sorted(EXAMPLES.iterdir()), ids=lambda file: file.name)
def test_the_example_files_are_valid(validator: Draft202012Validator, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        validator.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        GOOD,
        [GOOD, GOOD],
        {"policies": [GOOD]},
        {"name": "a", "table_pattern": "*", "rewrite_data_files": {"sort_order": ["a"], "strategy": "SORT"}},
        {**GOOD, "expireSnapshotsSchedule": {"interval": 1, "windowStart": "22:30", "window_end": 240}},
        {**GOOD, "triggerConditions": {"perOperationMinIntervalMinutes": {"orphanCleanup": 1, "expire_snapshots": 2}}},
    ],
)
def test_accepts_what_the_loader_accepts(validator: Draft202012Validator, document: Any) -> None:
    validator.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        {"name": "a"},
        {"tablePattern": "*"},
        {**GOOD, "expireSnapshot": {}},
        {**GOOD, "rewriteDataFiles": {"strategy": "binpack"}},
        {**GOOD, "rewrite_data_files": {"strategy": "binpack"}},
        {**GOOD, "expireSnapshots": {"maxSnapshotAge": "7 days"}},
        {**GOOD, "expireSnapshotsSchedule": {"interval": 0}},
        {**GOOD, "expireSnapshotsSchedule": {"windowStart": "24:00"}},
        {**GOOD, "triggerConditions": {"perOperationMinIntervalMinutes": {"compaction": 1}}},
        {**GOOD, "enabled": "yes"},
        {"policies": [GOOD], "other": 1},
        3,
    ],
)
def test_refuses_what_the_loader_refuses(validator: Draft202012Validator, document: Any) -> None:
    assert not validator.is_valid(document)


def test_is_the_same_in_every_process() -> None:
    program = (
        "import json; from airflow_provider_floe.policies.json_schema import policy_json_schema; "
        "print(json.dumps(policy_json_schema()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, env={"PYTHONHASHSEED": "12345"}
    )
    assert json.loads(other.stdout) == policy_json_schema()
    assert other.stdout.strip() == json.dumps(policy_json_schema())
