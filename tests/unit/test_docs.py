"""The pages under docs/ name what is there."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from airflow_provider_floe.policies import model
from airflow_provider_floe.provider_info import get_provider_info

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = (model.Policy, model.Schedule, model.TriggerConditions, model.HealthThresholds, model.RewriteIf)


@pytest.mark.parametrize("document", [*DOCUMENTS, *model.SETTINGS_MODELS.values(), model.PartitionSummary])
def test_every_field_of_a_policy_stands_on_the_page(document: type[model.Document]) -> None:
    page = (REPOSITORY / "docs" / "policies.md").read_text()
    names = [field.alias for field in document.model_fields.values()]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_option_stands_on_the_page_with_its_default() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", page, re.MULTILINE))
    options = get_provider_info()["config"]["floe"]["options"]
    assert shown == {name: option["default"] or "none" for name, option in options.items()}


def test_every_promise_names_tests_that_are_there() -> None:
    page = (REPOSITORY / "docs" / "safety.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::([\w*]+)`", page)
    assert len(named) > 19
    for file, pattern in named:
        (found,) = (REPOSITORY / "tests").rglob(file)
        tests = re.findall(r"def (test_\w+)\(", found.read_text())
        assert [test for test in tests if fnmatch(test, pattern)], f"{file}::{pattern}"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    file = REPOSITORY / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []
