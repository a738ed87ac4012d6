from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.catalogs.registry import catalog_kind, kind_of
from airflow_provider_floe.errors import ConfigurationError, MissingExtra

TOKENS = "https://h/iceberg/v1/oauth/tokens"
SECRET = "hunter2-secret"


def properties(conn_type: str = "floe", **fields: Any) -> dict[str, str]:
    connection = ConnectionFields("lake", conn_type=conn_type, **fields)
    return kind_of(connection).properties(connection)


def test_rest_fields_become_properties() -> None:
    found = properties(
        extra={
            "catalog_kind": "rest",
            "uri": "https://catalog.example.com/api/catalog/",
            "warehouse": "main",
            "credential": "id:secret",
            "oauth2_server_uri": "https://login.example.com/token",
            "scope": "PRINCIPAL_ROLE:ALL",
            "properties": '{"s3.endpoint": "http://minio:9000", "rest-page-size": 100, "s3.path-style-access": true}',
        }
    )
    assert found == {
        "type": "rest",
        "uri": "https://catalog.example.com/api/catalog",
        "warehouse": "main",
        "credential": "id:secret",
        "oauth2-server-uri": "https://login.example.com/token",
        "scope": "PRINCIPAL_ROLE:ALL",
        "s3.endpoint": "http://minio:9000",
        "rest-page-size": "100",
        "s3.path-style-access": "true",
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"login": "id", "password": "secret"}, {"credential": "id:secret"}),
        ({"password": "abc"}, {"token": "abc"}),
        ({"login": "id", "password": "secret", "extra": {"token": "t"}}, {"token": "t"}),
        ({}, {}),
    ],
)
def test_login_and_password_fill_in_only_what_the_extra_leaves_out(
    fields: dict[str, Any], expected: dict[str, str]
) -> None:
    found = properties(host="https://h", **fields)
    assert {key: found[key] for key in ("credential", "token") if key in found} == expected


def test_port_completes_the_host() -> None:
    assert properties(host="http://h/iceberg", port=8181)["uri"] == "http://h:8181/iceberg"


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        (
            {"host": "db", "port": 5433, "schema": "lake", "login": "floe", "password": "p@ss/w"},
            "postgresql+psycopg2://floe:p%40ss%2Fw@db:5433/lake?connect_timeout=10",
        ),
        (
            {"login": "floe", "password": "pw", "extra": {"uri": "postgres://db/lake?sslmode=require"}},
            "postgresql+psycopg2://floe:pw@db/lake?connect_timeout=10&sslmode=require",
        ),
        ({"extra": {"uri": "sqlite:////data/catalog.db"}}, "sqlite:////data/catalog.db"),
        ({"host": "sqlite:////data/catalog.db"}, "sqlite:////data/catalog.db"),
    ],
)
def test_sql_connections_become_database_urls(fields: dict[str, Any], uri: str) -> None:
    fields = {**fields, "extra": {"catalog_kind": "sql", **fields.get("extra", {})}}
    assert properties(**fields)["uri"] == uri


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"extra": {"catalog_kind": "sqll"}}, ("'catalog_kind'", "did you mean 'sql'")),
        ({"extra": {"catalog_kind": "rest"}}, ("'uri'", "is missing", "https://")),
        ({"host": "h"}, ("'host'", "'h' is no HTTP URI")),
        ({"extra": {"uri": "https://h", "wharehouse": "x"}}, ("'wharehouse'", "did you mean 'warehouse'")),
        ({"extra": {"uri": 7}}, ("'uri'", "must be text, not int")),
        ({"extra": {"uri": "https://h", "properties": "{"}}, ("'properties'", "is not JSON")),
        ({"extra": {"uri": "https://h", "properties": [1]}}, ("'properties'", "is not a JSON object")),
        ({"extra": {"uri": "https://h", "properties": {"s3": {"a": "b"}}}}, ("'properties.s3'", "not dict")),
        ({"extra": {"uri": f"https://u:{SECRET}@h"}}, ("'uri'", "holds a password")),
        ({"extra": {"uri": f"ftp://u:{SECRET}@h"}}, ("'uri'", "no HTTP URI")),
        ({"extra": {"catalog_kind": "sql"}}, ("'uri'", "is missing", "sqlite:////path")),
        ({"extra": {"catalog_kind": "sql", "uri": "catalog.db"}}, ("'uri'", "is no database URL")),
        ({"extra": {"catalog_kind": "sql", "uri": "sqlite:///catalog.db"}}, ("'catalog.db' is relative",)),
        ({"extra": {"catalog_kind": "sql", "uri": "sqlite://"}}, ("in memory",)),
        ({"extra": {"catalog_kind": "sql", "uri": f"mysql://u:{SECRET}@h/d"}}, ("database 'mysql' is not known",)),
        ({"host": "h", "password": SECRET, "extra": {"catalog_kind": "sql"}}, ("'schema'", "names no database")),
        ({"conn_type": "iceberg"}, ("'host'", "is missing")),
    ],
)
def test_a_bad_field_is_named_with_its_fix_and_no_secret(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(ConnectionFields("lake", **{"conn_type": "floe", **fields}))
    for word in ("'lake'", *words):
        assert word in str(caught.value)
    assert SECRET not in str(caught.value)


def test_fields_of_other_kinds_that_the_form_left_empty_are_no_mistake() -> None:
    found = properties(extra={"uri": "https://h", "ref": None, "access_delegation": "", "scope": None})
    assert found == {"type": "rest", "uri": "https://h"}
    with pytest.raises(ConfigurationError, match="'ref': there is no such field"):
        properties(extra={"uri": "https://h", "ref": "main"})


@pytest.mark.parametrize(
    ("extra", "header"),
    [
        ({}, None),
        ({"properties": {"s3.access-key-id": "mine"}}, ""),
        ({"properties": {"s3.access-key-id": "mine"}, "access_delegation": "vended-credentials"}, "vended-credentials"),
        ({"properties": {"s3.access-key-id": "a", "header.X-Iceberg-Access-Delegation": "theirs"}}, "theirs"),
        ({"access_delegation": "none"}, ""),
        ({"catalog_kind": "lakekeeper", "warehouse": "w", "access_delegation": "none"}, "client-managed"),
    ],
)
def test_credentials_of_the_storage_are_asked_for_unless_the_connection_has_some(
    extra: dict[str, Any], header: str | None
) -> None:
    found = properties(extra={"uri": "https://h", **extra})
    assert found.get("header.X-Iceberg-Access-Delegation") == header


def test_the_fields_themselves_show_no_secret() -> None:
    connection = ConnectionFields("lake", password=SECRET, extra={"token": SECRET, "uri": "https://h"})
    assert SECRET not in repr(connection)
    assert SECRET not in repr(connect(connection))
    in_uri = ConnectionFields("lake", host=f"postgresql://u:{SECRET}@h/d", extra={"catalog_kind": "sql"})
    assert SECRET not in repr(in_uri)
    assert SECRET not in repr(connect(in_uri))


def test_another_package_registers_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moon_catalog.py").write_text(
        "class MoonKind:\n"
        "    name = 'moon'\n"
        "    def properties(self, connection):\n"
        "        return {'type': 'rest', 'uri': 'https://moon'}\n"
        "    def cannot(self, operation):\n"
        "        return 'no files on the moon'\n"
        "def broken():\n"
        "    raise RuntimeError('no air')\n"
    )
    info = tmp_path / "moon_catalog-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moon-catalog\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[airflow_provider_floe.catalogs]\nmoon = moon_catalog:MoonKind\ndark = moon_catalog:broken\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert connect(ConnectionFields("c", extra={"catalog_kind": "moon"})).kind == "moon"
    with pytest.raises(ConfigurationError, match="did you mean 'moon'"):
        catalog_kind("mooon")
    with pytest.raises(ConfigurationError, match=r"'dark' of moon_catalog:broken cannot be loaded: no air"):
        catalog_kind("dark")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (
            {"catalog_kind": "polaris", "warehouse": "prod", "credential": "id:secret"},
            {
                "warehouse": "prod",
                "credential": "id:secret",
                "scope": "PRINCIPAL_ROLE:ALL",
                "oauth2-server-uri": TOKENS,
            },
        ),
        (
            {
                "catalog_kind": "polaris",
                "warehouse": "w",
                "scope": "PRINCIPAL_ROLE:x",
                "oauth2_server_uri": "https://i/t",
            },
            {"warehouse": "w", "scope": "PRINCIPAL_ROLE:x", "oauth2-server-uri": "https://i/t"},
        ),
        ({"catalog_kind": "polaris", "warehouse": "w", "token": "t"}, {"warehouse": "w", "token": "t"}),
        ({"catalog_kind": "lakekeeper", "warehouse": "w", "token": "t"}, {"warehouse": "w", "token": "t"}),
        ({"catalog_kind": "gravitino"}, {}),
    ],
)
def test_servers_with_their_own_needs(extra: dict[str, Any], expected: dict[str, str]) -> None:
    found = properties(extra={"uri": "https://h/iceberg/", **extra})
    assert found == {"type": "rest", "uri": "https://h/iceberg", **expected}


@pytest.mark.parametrize("kind", ["polaris", "lakekeeper"])
def test_servers_of_many_warehouses_need_one_named(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'lake', field 'warehouse': is missing; write the name"):
        properties(extra={"catalog_kind": kind, "uri": "https://h"})


@pytest.mark.parametrize(
    ("uri", "ref", "expected"),
    [
        ("https://n:19120/iceberg", None, "https://n:19120/iceberg/main"),
        ("https://n:19120/iceberg/", "etl", "https://n:19120/iceberg/etl"),
        ("https://n:19120/api/v2", "feature/x", "https://n:19120/iceberg/feature%2Fx"),
        ("https://n:19120/iceberg/dev", None, "https://n:19120/iceberg/dev"),
    ],
)
def test_nessie_is_reached_at_its_iceberg_endpoint(uri: str, ref: str | None, expected: str) -> None:
    assert properties(extra={"catalog_kind": "nessie", "uri": uri, "ref": ref})["uri"] == expected


def test_hive_without_its_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thrift", None)
    with pytest.raises(MissingExtra, match=r"catalog kind hive needs an extra: .*\[hive\]"):
        connect(ConnectionFields("lake", extra={"catalog_kind": "hive", "uri": "thrift://h:9083"}))


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"extra": {"uri": "thrift://a:9083,thrift://b:9083"}}, "thrift://a:9083,thrift://b:9083"),
        ({"host": "metastore", "port": 9000}, "thrift://metastore:9000"),
        ({"host": "metastore"}, "thrift://metastore:9083"),
    ],
)
def test_hive_metastore_uris(fields: dict[str, Any], uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thrift", thrift_client())
    fields = {**fields, "extra": {"catalog_kind": "hive", "warehouse": "s3://b", **fields.get("extra", {})}}
    assert properties(**fields) == {"type": "hive", "uri": uri, "warehouse": "s3://b"}


def test_a_hive_uri_of_another_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thrift", thrift_client())
    with pytest.raises(ConfigurationError, match=r"'http://h' is no Thrift URI; write for example thrift://"):
        properties(extra={"catalog_kind": "hive", "uri": "http://h"})


def thrift_client() -> ModuleType:
    """Stands for the installed Thrift client."""
    module = ModuleType("thrift")
    module.__spec__ = ModuleSpec("thrift", None)
    return module
