"""docs/policies.md names every field of the policy document."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_floe.policies import model

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
DOCUMENTS = (model.Policy, model.Schedule, model.TriggerConditions, model.HealthThresholds, model.RewriteIf)


@pytest.mark.parametrize("document", [*DOCUMENTS, *model.SETTINGS_MODELS.values(), model.PartitionSummary])
def test_every_field_stands_on_the_page(document: type[model.Document]) -> None:
    names = [field.alias for field in document.model_fields.values()]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
