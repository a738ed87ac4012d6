"""The catalogs whose real servers the tests start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from harness.catalogs.base import NAME, CatalogUnderTest, Mistake, Place, changed
from harness.hive_client import add_hive_client
from harness.postgres import postgresql
from harness.services import hive_metastore, nessie, rest, seaweedfs
from harness.services.base import Facts
from harness.services.process import free_port
from harness.services.running import use
from harness.services.s3 import file_io_properties

from airflow_provider_floe.tables import Operation

NO_HOST = "no-such-host.invalid"
ODD_LEVELS = ("schéma", "名前 空間")
ODD_NAMES = ("ünï", "wîth blank", "dot.ted", "日本語")
DOTTED = ("a.dotted.level",)
_DELETING = (Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES)


@contextmanager
def _rest() -> Iterator[Place]:
    with use("s3", "rest") as services:
        uri = services["rest"]["uri"]
        connection = _floe(services["s3"], catalog_kind="rest", uri=uri)
        yield Place(
            connection,
            wrong_places(connection),
            trino={**trino_rest(uri), **trino_s3(services["s3"])},
            spark={"type": "rest", "uri": uri, **spark_s3(services["s3"])},
        )


@contextmanager
def _seaweedfs() -> Iterator[Place]:
    with use("seaweedfs") as services:
        facts = services["seaweedfs"]
        uri, warehouse, key, secret = facts["uri"], facts["warehouse"], facts["key"], facts["secret"]
        connection = changed(
            _floe(facts, catalog_kind="rest", uri=uri, warehouse=warehouse), login=key, password=secret
        )
        token = changed(connection, without=("login",), password="a-token-of-yesterday")
        yield Place(
            connection,
            {
                **wrong_places(connection),
                "credential": Mistake(changed(connection, password="wrong"), ("'login'", "'password'", "refused")),
                "no credential": Mistake(changed(connection, without=("login", "password")), ("'login'", "sign-in")),
                "token": Mistake(token, ("'password'", "token", "expired")),
                "warehouse": Mistake(changed(connection, extra={"warehouse": "s3://other"}), ("'warehouse'",), False),
                "token server": Mistake(
                    changed(connection, extra={"oauth2_server_uri": f"{uri}/v1/no-tokens-here"}),
                    ("'oauth2_server_uri'",),
                ),
            },
            trino={
                **trino_rest(uri),
                "iceberg.rest-catalog.warehouse": warehouse,
                "iceberg.rest-catalog.security": "OAUTH2",
                "iceberg.rest-catalog.oauth2.credential": f"{key}:{secret}",
                "iceberg.rest-catalog.oauth2.server-uri": f"{uri}/v1/oauth/tokens",
                **trino_s3(facts),
            },
            spark={
                **{"type": "rest", "uri": uri, "warehouse": warehouse, "credential": f"{key}:{secret}"},
                "oauth2-server-uri": f"{uri}/v1/oauth/tokens",
                **spark_s3(facts),
            },
        )


@contextmanager
def _nessie() -> Iterator[Place]:
    with use("s3", "nessie") as services:
        facts = services["nessie"]
        connection = _floe(services["s3"], catalog_kind="nessie", uri=facts["native_uri"])
        no_warehouse = changed(connection, extra={"warehouse": "none-such"})
        yield Place(
            connection,
            {
                **wrong_places(connection),
                "ref": Mistake(changed(connection, extra={"ref": "no-such-branch"}), ("'ref'", "no-such-branch")),
                "warehouse": Mistake(no_warehouse, ("'warehouse'", "none-such")),
            },
            trino={
                **trino_rest(facts["uri"]),
                "iceberg.rest-catalog.warehouse": facts["warehouse"],
                **trino_s3(services["s3"]),
            },
            spark={
                **{"type": "rest", "uri": facts["uri"], "warehouse": facts["warehouse"]},
                **spark_s3(services["s3"]),
            },
        )


@contextmanager
def _hive() -> Iterator[Place]:
    add_hive_client()
    with use("s3", "hive-metastore") as services:
        facts = services["hive-metastore"]
        connection = _floe(services["s3"], catalog_kind="hive", uri=facts["uri"], warehouse=facts["warehouse"])
        yield Place(
            connection,
            wrong_places(connection),
            trino={
                "iceberg.catalog.type": "hive_metastore",
                "hive.metastore.uri": facts["uri"],
                **trino_s3(services["s3"]),
            },
            spark={"type": "hive", "uri": facts["uri"], "warehouse": facts["warehouse"], **spark_s3(services["s3"])},
        )


@contextmanager
def _sql() -> Iterator[Place]:
    from pyiceberg.catalog.sql import SqlCatalog

    with use("s3") as services, postgresql() as server:
        s3 = services["s3"]
        warehouse = f"s3://{s3['bucket']}/sql-{server.port}"
        SqlCatalog(NAME, uri=server.url(driver="psycopg2"), warehouse=warehouse, **file_io_properties(s3)).close()
        jdbc = f"jdbc:postgresql://{server.host}:{server.port}/{server.database}"
        connection = changed(
            _floe(s3, catalog_kind="sql", warehouse=warehouse, catalog_name=NAME),
            host=server.host,
            port=server.port,
            schema=server.database,
            login=server.user,
            password=server.password,
        )
        yield Place(
            connection,
            {
                "host": Mistake(changed(connection, host=NO_HOST), ("'host'", NO_HOST)),
                "port": Mistake(changed(connection, port=free_port()), ("'port'", "runs")),
                "credential": Mistake(changed(connection, password="wrong"), ("'login'", "'password'")),
                "database": Mistake(changed(connection, schema="nowhere"), ("'schema'", "nowhere")),
                "name": Mistake(
                    changed(connection, extra={"catalog_name": "leke"}), ("'catalog_name'", "leke", f"{NAME!r}"), False
                ),
            },
            trino={
                "iceberg.catalog.type": "jdbc",
                "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
                "iceberg.jdbc-catalog.connection-url": jdbc,
                "iceberg.jdbc-catalog.connection-user": server.user,
                "iceberg.jdbc-catalog.connection-password": server.password,
                "iceberg.jdbc-catalog.catalog-name": NAME,
                "iceberg.jdbc-catalog.default-warehouse-dir": warehouse,
                **trino_s3(s3),
            },
            spark={
                **{"type": "jdbc", "uri": jdbc, "jdbc.user": server.user, "jdbc.password": server.password},
                "warehouse": warehouse,
                **spark_s3(s3),
            },
        )


def wrong_places(connection: Mapping[str, Any]) -> dict[str, Mistake]:
    """A host and a port where nothing is, for connections with a ``uri``."""
    uri = connection["extra"]["uri"]
    parts, port = urlsplit(uri), str(free_port())
    elsewhere = uri.replace(f"{parts.hostname}:{parts.port}", f"{NO_HOST}:{parts.port}")
    closed = uri.replace(f":{parts.port}", f":{port}")
    return {
        "host": Mistake(changed(connection, extra={"uri": elsewhere}), ("'uri'", NO_HOST)),
        "port": Mistake(changed(connection, extra={"uri": closed}), ("'uri'", port, "runs")),
    }


def trino_rest(uri: str) -> dict[str, str]:
    """Trino's properties of a REST catalog."""
    return {
        "iceberg.catalog.type": "rest",
        "iceberg.rest-catalog.uri": uri,
        "iceberg.rest-catalog.nested-namespace-enabled": "true",
    }


def trino_s3(store: Facts) -> dict[str, str]:
    """Trino's properties of the store, and no minimum retention."""
    return {
        "fs.native-s3.enabled": "true",
        "s3.endpoint": store["endpoint"],
        "s3.region": store["region"],
        "s3.path-style-access": "true",
        "s3.aws-access-key": store["key"],
        "s3.aws-secret-key": store["secret"],
        "iceberg.expire-snapshots.min-retention": "0s",
        "iceberg.remove-orphan-files.min-retention": "0s",
    }


def spark_s3(store: Facts) -> dict[str, str]:
    """Spark's properties of the store."""
    return {
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "s3.endpoint": store["endpoint"],
        "s3.path-style-access": "true",
        "s3.access-key-id": store["key"],
        "s3.secret-access-key": store["secret"],
        "client.region": store["region"],
    }


def _floe(store: Facts, **extra: Any) -> dict[str, Any]:
    return {"conn_type": "floe", "extra": {**extra, "properties": file_io_properties(store)}}


REST = CatalogUnderTest("iceberg-rest", "rest", rest.ICEBERG, _rest, levels=ODD_LEVELS, names=ODD_NAMES)
SEAWEEDFS = CatalogUnderTest("seaweedfs", "rest", seaweedfs.VERSION, _seaweedfs)
NESSIE = CatalogUnderTest(
    "nessie",
    "nessie",
    nessie.VERSION,
    _nessie,
    levels=ODD_LEVELS + DOTTED,
    names=ODD_NAMES,
    refuses=dict.fromkeys(_DELETING, "nessie-gc"),
)
HIVE = CatalogUnderTest("hive", "hive", hive_metastore.VERSION, _hive, nested=False)
SQL = CatalogUnderTest("sql", "sql", "PostgreSQL", _sql, levels=ODD_LEVELS, names=ODD_NAMES)
