"""Connections that are wrong in one way, against real servers: the answer names the field and what to do."""

from __future__ import annotations

import json

import pytest
from catalog_tables import Lake
from harness.catalogs.base import Place

from airflow_provider_floe.hooks.floe import FloeHook


def test_every_mistake_is_named_with_its_field_and_fix(
    lake: Lake, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclear = []
    for name, mistake in place.mistakes.items():
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(mistake.connection))
        good, text = FloeHook("lake").test_connection()
        if good is mistake.refused or not all(words in text for words in mistake.says):
            unclear.append((name, text))
        for secret in (mistake.connection.get("password"), place.connection.get("password")):
            assert secret is None or secret not in text
    assert unclear == []
