from __future__ import annotations

import json

import pytest
from harness.tables import lake, small_files

from airflow_provider_floe.airflow_catalogs import open_catalogs
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.hooks.floe import FloeHook
from airflow_provider_floe.tables import TableRef


@pytest.fixture
def connect(tmp_path, monkeypatch):
    small_files(lake(tmp_path), 1)

    def add(conn_id, conn_type="floe", **extra):
        given = {"catalog_kind": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", **extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, "extra": given}))

    return add


def test_the_hook_loads_tables(connect):
    connect("lake")
    catalog = FloeHook("lake").catalog
    assert list(catalog.tables()) == [TableRef("lake", ("db",), "events")]
    assert catalog.load(TableRef("lake", ("db",), "events")).current_snapshot() is not None


def test_the_test_button_says_what_answered_or_what_to_check(connect, tmp_path):
    connect("lake")
    good, message = FloeHook("lake").test_connection()
    assert good
    assert "1 namespace," in message
    connect("gone", uri=f"sqlite:///{tmp_path}/nowhere/catalog.db")
    good, message = FloeHook("gone").test_connection()
    assert not good
    assert "gone" in message
    good, message = FloeHook("never_added").test_connection()
    assert not good
    assert "airflow connections add never_added" in message


def test_another_type_of_connection_is_refused(connect):
    connect("lake", conn_type="postgres")
    with pytest.raises(ConfigurationError, match=r"'lake' is of type 'postgres'.*floe or iceberg"):
        _ = FloeHook("lake").catalog


def test_catalogs_are_named_by_connection_or_by_catalog_name(connect):
    connect("lake")
    connect("cold", catalog_name="archive")
    assert list(open_catalogs(["lake", "cold"])) == ["lake", "archive"]


def test_two_catalogs_of_one_name_are_refused(connect):
    connect("lake")
    connect("cold", catalog_name="lake")
    with pytest.raises(ConfigurationError, match=r"'lake' and 'cold' both name their catalog 'lake'"):
        open_catalogs(["lake", "cold"])


def test_no_catalogs_names_the_setting():
    with pytest.raises(ConfigurationError, match=r"\[floe\] catalogs"):
        open_catalogs([])


def test_a_wrong_connection_fails_only_when_its_catalog_is_used(connect):
    connect("lake")
    connect("cold", catalog_name="archive", warehose="typo")
    catalogs = open_catalogs(["lake", "cold"])
    assert catalogs["lake"].namespaces() == [("db",)]
    with pytest.raises(ConfigurationError, match="did you mean 'warehouse'"):
        catalogs["archive"].namespaces()
