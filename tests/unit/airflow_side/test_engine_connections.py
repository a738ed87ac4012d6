"""Engines that work elsewhere are made from the connections that ``[floe]`` names."""

from __future__ import annotations

import json

import pytest

from airflow_provider_floe.airflow_environment import open_engines
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.errors import ConfigurationError, FloeError
from airflow_provider_floe.maintenance.settings import Settings


@pytest.fixture
def trino(monkeypatch: pytest.MonkeyPatch):
    def connection(conn_type: str = "trino", **extra: object) -> None:
        monkeypatch.setenv("AIRFLOW__FLOE__TRINO_CONN_ID", "query_engine")
        document = {"conn_type": conn_type, "host": "127.0.0.1", "port": 1, "login": "me", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_QUERY_ENGINE", json.dumps(document))

    return connection


def test_without_a_connection_there_is_no_trino() -> None:
    assert "trino" not in open_engines(Settings())


@pytest.mark.parametrize("written", [{"prod": "iceberg"}, '{"prod": "iceberg"}'])
def test_trino_knows_its_catalogs_by_the_names_of_policies(trino, written: object) -> None:
    trino(floe_catalogs=written)
    engine = open_engines(Settings())["trino"]
    assert isinstance(engine, TrinoEngine)
    assert engine.catalogs == {"prod": "iceberg"}


@pytest.mark.parametrize("written", ["prod=iceberg", ["iceberg"], {"prod": 1}, {"prod": ""}])
def test_a_mapping_that_is_none_is_refused_with_the_fix(trino, written: object) -> None:
    trino(floe_catalogs=written)
    with pytest.raises(ConfigurationError, match=r"'query_engine': floe_catalogs .*\"prod\": \"iceberg\""):
        open_engines(Settings())["trino"].probe()


def test_a_connection_of_another_type_is_refused(trino) -> None:
    trino("postgres")
    with pytest.raises(ConfigurationError, match=r"trino_conn_id = 'query_engine'.*'postgres'"):
        open_engines(Settings())["trino"].probe()


def test_a_connection_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FLOE__TRINO_CONN_ID", "nowhere")
    with pytest.raises(FloeError, match="no connection 'nowhere'"):
        open_engines(Settings())["trino"].probe()
