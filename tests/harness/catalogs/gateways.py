"""Polaris, Lakekeeper and Gravitino, for which gateways stand in before Iceberg's own REST server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from harness.catalogs.base import CatalogUnderTest, Mistake, Place, changed
from harness.catalogs.servers import ODD_LEVELS, ODD_NAMES, spark_s3, trino_rest, trino_s3, wrong_places
from harness.gateways import gravitino, lakekeeper, polaris
from harness.gateways.base import Credentials
from harness.gateways.gravitino import DEFAULT, GravitinoGateway
from harness.gateways.lakekeeper import LakekeeperGateway, Warehouse
from harness.gateways.polaris import PolarisGateway, Principal
from harness.gateways.tokens import IdentityProvider
from harness.http_server import running
from harness.services.base import Facts
from harness.services.running import use
from harness.services.s3 import file_io_properties

CLIENT, SECRET = "floe-client", "floe-client-secret"
PRINCIPALS = {
    CLIENT: Principal("floe", SECRET),
    "newcomer-client": Principal("newcomer", "newcomer-secret", reads=False, writes=False),
    "reader-client": Principal("reader", "reader-secret", writes=False),
}
WAREHOUSE, VENDING = "prod", "vending"
_IDS = {WAREHOUSE: UUID("019a0000-0000-7000-8000-000000000001"), VENDING: UUID("019a0000-0000-7000-8000-000000000002")}


def credentials_of(store: Facts) -> Credentials:
    """What catalogs vend for the store."""
    return Credentials(
        f"s3://{store['bucket']}",
        {
            "s3.access-key-id": store["key"],
            "s3.secret-access-key": store["secret"],
            "s3.session-token": "vended-session-token",
        },
    )


def place_of(store: Facts) -> dict[str, str]:
    """Where the store is, as catalogs tell their clients; no keys."""
    return {"s3.endpoint": store["endpoint"], "s3.region": store["region"], "s3.path-style-access": "true"}


@contextmanager
def polaris_gateway(**options: Any) -> Iterator[tuple[PolarisGateway, Facts]]:
    """A gateway of Polaris with two catalogs, one without credentials to vend and one with; and the store's facts."""
    with use("s3", "rest") as services:
        catalogs = {WAREHOUSE: None, VENDING: credentials_of(services["s3"])}
        with running(PolarisGateway(services["rest"]["uri"], PRINCIPALS, catalogs, **options)) as gateway:
            yield gateway, services["s3"]


@contextmanager
def lakekeeper_gateway() -> Iterator[tuple[LakekeeperGateway, Facts]]:
    """A gateway of Lakekeeper with two warehouses, one that has clients' requests signed and one that vends
    credentials; its identity provider; and the store's facts.
    """
    with use("s3", "rest") as services:
        store = services["s3"]
        warehouses = {
            WAREHOUSE: Warehouse(_IDS[WAREHOUSE], place_of(store)),
            VENDING: Warehouse(_IDS[VENDING], place_of(store), credentials_of(store)),
        }
        provider = IdentityProvider({CLIENT: SECRET}, (lakekeeper.SCOPE, "profile"))
        gateway = LakekeeperGateway(services["rest"]["uri"], provider, warehouses)
        with running(provider), running(gateway):
            yield gateway, store


@contextmanager
def gravitino_gateway() -> Iterator[tuple[GravitinoGateway, Facts]]:
    """A gateway of Gravitino with a default catalog and one named, without providers of credentials, and one with."""
    with use("s3", "rest") as services:
        catalogs = {DEFAULT: None, WAREHOUSE: None, VENDING: credentials_of(services["s3"])}
        with running(GravitinoGateway(services["rest"]["uri"], catalogs)) as gateway:
            yield gateway, services["s3"]


def polaris_connection(gateway: PolarisGateway, store: Facts) -> dict[str, Any]:
    """In Airflow's JSON form, with keys of the storage."""
    extra = {"catalog_kind": "polaris", "uri": gateway.catalog_uri, "warehouse": WAREHOUSE}
    return {
        **{"conn_type": "floe", "login": CLIENT, "password": SECRET},
        "extra": {**extra, "properties": file_io_properties(store)},
    }


def lakekeeper_connection(gateway: LakekeeperGateway, store: Facts) -> dict[str, Any]:
    """In Airflow's JSON form, with keys of the storage."""
    return {
        **{"conn_type": "floe", "login": CLIENT, "password": SECRET},
        "extra": {
            **{"catalog_kind": "lakekeeper", "uri": gateway.catalog_uri, "warehouse": WAREHOUSE},
            **{"oauth2_server_uri": gateway.provider.token_uri, "scope": lakekeeper.SCOPE},
            "properties": file_io_properties(store),
        },
    }


def gravitino_connection(gateway: GravitinoGateway, store: Facts) -> dict[str, Any]:
    """In Airflow's JSON form, with keys of the storage."""
    extra = {"catalog_kind": "gravitino", "uri": gateway.catalog_uri, "warehouse": WAREHOUSE}
    return {"conn_type": "floe", "extra": {**extra, "properties": file_io_properties(store)}}


def _sign_in_mistakes(connection: dict[str, Any]) -> dict[str, Mistake]:
    token = changed(connection, without=("login",), password="a-token-of-yesterday")
    nobody = changed(connection, without=("login", "password"))
    return {
        "credential": Mistake(changed(connection, password="wrong"), ("'login'", "'password'", "refused")),
        "no credential": Mistake(nobody, ("'login'", "sign-in")),
        "token": Mistake(token, ("'password'", "token", "expired")),
        "scope": Mistake(changed(connection, extra={"scope": "everything"}), ("'scope'", "everything")),
        "warehouse": Mistake(changed(connection, extra={"warehouse": "other"}), ("'warehouse'", "other")),
    }


@contextmanager
def _polaris() -> Iterator[Place]:
    with polaris_gateway() as (gateway, store):
        connection = polaris_connection(gateway, store)
        uri, tokens = gateway.catalog_uri, f"{gateway.catalog_uri}/v1/oauth/tokens"
        newcomer = changed(connection, login="newcomer-client", password="newcomer-secret")
        role = changed(connection, extra={"scope": "PRINCIPAL_ROLE:another"})
        yield Place(
            connection,
            {
                **wrong_places(connection),
                **_sign_in_mistakes(connection),
                "grants": Mistake(newcomer, ("lacks rights: grant them",)),
                "role": Mistake(role, ("'scope'",)),
            },
            trino={
                **trino_rest(uri),
                "iceberg.rest-catalog.warehouse": WAREHOUSE,
                "iceberg.rest-catalog.security": "OAUTH2",
                "iceberg.rest-catalog.oauth2.credential": f"{CLIENT}:{SECRET}",
                "iceberg.rest-catalog.oauth2.scope": polaris.ALL_ROLES,
                "iceberg.rest-catalog.oauth2.server-uri": tokens,
                **trino_s3(store),
            },
            spark={
                **{"type": "rest", "uri": uri, "warehouse": WAREHOUSE, "credential": f"{CLIENT}:{SECRET}"},
                **{"scope": polaris.ALL_ROLES, "oauth2-server-uri": tokens},
                **spark_s3(store),
            },
        )


@contextmanager
def _lakekeeper() -> Iterator[Place]:
    with lakekeeper_gateway() as (gateway, store):
        connection = lakekeeper_connection(gateway, store)
        uri, tokens = gateway.catalog_uri, gateway.provider.token_uri
        no_provider = changed(connection, without=("oauth2_server_uri",))
        no_audience = changed(connection, extra={"scope": "profile"})
        yield Place(
            connection,
            {
                **wrong_places(connection),
                **_sign_in_mistakes(connection),
                "token server": Mistake(no_provider, ("'oauth2_server_uri'",)),
                "audience": Mistake(no_audience, ("'oauth2_server_uri' and 'scope'",)),
            },
            trino={
                **trino_rest(uri),
                "iceberg.rest-catalog.warehouse": VENDING,
                "iceberg.rest-catalog.vended-credentials-enabled": "true",
                "iceberg.rest-catalog.security": "OAUTH2",
                "iceberg.rest-catalog.oauth2.credential": f"{CLIENT}:{SECRET}",
                "iceberg.rest-catalog.oauth2.scope": lakekeeper.SCOPE,
                "iceberg.rest-catalog.oauth2.server-uri": tokens,
                **trino_s3(store),
            },
            spark={
                **{"type": "rest", "uri": uri, "warehouse": WAREHOUSE, "credential": f"{CLIENT}:{SECRET}"},
                **{"scope": lakekeeper.SCOPE, "oauth2-server-uri": tokens},
                "header.X-Iceberg-Access-Delegation": "client-managed",
                **spark_s3(store),
            },
        )


@contextmanager
def _gravitino() -> Iterator[Place]:
    with gravitino_gateway() as (gateway, store):
        connection = gravitino_connection(gateway, store)
        uri = gateway.catalog_uri
        token = changed(connection, password="a-token-of-yesterday")
        yield Place(
            connection,
            {
                **wrong_places(connection),
                "token": Mistake(token, ("'password'", "token")),
                "warehouse": Mistake(changed(connection, extra={"warehouse": "other"}), ("'warehouse'", "other")),
            },
            trino={**trino_rest(uri), "iceberg.rest-catalog.warehouse": WAREHOUSE, **trino_s3(store)},
            spark={"type": "rest", "uri": uri, "warehouse": WAREHOUSE, **spark_s3(store)},
        )


def _imitated(commit: str) -> str:
    return f"imitated ({commit})"


POLARIS = CatalogUnderTest(
    "polaris", "polaris", _imitated(polaris.COMMIT), _polaris, levels=ODD_LEVELS, names=ODD_NAMES, imitated=True
)
LAKEKEEPER = CatalogUnderTest(
    "lakekeeper",
    "lakekeeper",
    _imitated(lakekeeper.COMMIT),
    _lakekeeper,
    levels=ODD_LEVELS,
    names=ODD_NAMES,
    imitated=True,
)
GRAVITINO = CatalogUnderTest(
    "gravitino",
    "gravitino",
    _imitated(gravitino.COMMIT),
    _gravitino,
    levels=ODD_LEVELS,
    names=ODD_NAMES,
    imitated=True,
)
