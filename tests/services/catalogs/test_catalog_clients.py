"""The products' own Python clients at the gateways: they see what Floe made, and are refused as Floe is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from catalog_tables import Lake, maintain
from harness import gateways
from harness.catalogs.base import Place
from harness.catalogs.gateways import (
    CLIENT,
    SECRET,
    VENDING,
    WAREHOUSE,
    gravitino_connection,
    gravitino_gateway,
    polaris_connection,
    polaris_gateway,
)
from harness.environments import environment
from harness.gateways.gravitino_metalake import MetalakeServer
from harness.http_server import running

from airflow_provider_floe.tables import Operation

SCRIPTS = Path(gateways.__path__[0])


def seen_by(product: str, version: str, *arguments: str) -> Any:
    """What the client of that product tells."""
    python = environment(f"{product}-client", [f"apache-{product}=={version}"])
    command = [python, "-P", SCRIPTS / f"{product}_client.py", *arguments]  # -P: gravitino.py lies beside it
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def compacted(connection: dict[str, Any]) -> Lake:
    """A namespace with a table that Floe has rewritten."""
    lake = Lake.of(Place(connection), f"c{uuid4().hex[:10]}")
    lake.catalog.create_namespace((lake.namespace,))
    result = maintain(lake.environment(), lake.small_files(files=3), Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    return lake


def test_the_client_of_polaris() -> None:
    with polaris_gateway() as (gateway, store):
        lake = compacted(polaris_connection(gateway, store))
        lake.catalog.create_namespace((lake.namespace, "inner"))
        table = lake.catalog.load_table((lake.namespace, "events"))
        seen = seen_by("polaris", "1.8.0", gateway.catalog_uri, CLIENT, SECRET, WAREHOUSE, lake.namespace, "events")
    wrong_secret, vended, no_table = seen["wrong secret"], seen["vended"], seen["no table"]
    assert wrong_secret == [
        401,
        {"error": "unauthorized_client", "error_description": "The client is not authorized"},
    ]
    assert seen["wrong scope"] == [400, {"error": "invalid_scope", "error_description": "The scope is invalid"}]
    assert seen["overrides"] == {"prefix": WAREHOUSE, "namespace-separator": "%1F"}
    assert seen["wrong warehouse"][0] == 404
    assert seen["namespaces"] == [[lake.namespace, "inner"]]
    assert seen["tables"] == ["events"]
    assert seen["snapshot"] == table.metadata.current_snapshot_id
    assert vended[0] == 400
    assert vended[1]["error"]["message"] == (
        f"Credential vending was requested for table {lake.namespace}.events, but no credentials are available"
    )
    assert (no_table[0], no_table[1]["error"]["type"]) == (404, "NoSuchTableException")


def test_the_client_of_gravitino(request: pytest.FixtureRequest) -> None:
    """It speaks to the metalake, beside the Iceberg REST service."""
    if not request.config.getoption("all_versions"):
        pytest.skip("its environment takes a minute to install: --all-versions")
    with gravitino_gateway() as (gateway, store), running(MetalakeServer(gateway, "lakehouse")) as server:
        lake = compacted(gravitino_connection(gateway, store))
        seen = seen_by("gravitino", "1.3.1", server.uri, "lakehouse", WAREHOUSE, lake.namespace)
    assert "nowhere" in seen.pop("missing")
    assert seen == {
        "catalogs": [WAREHOUSE, VENDING],
        "provider": "lakehouse-iceberg",
        "there": True,
        "tables": ["events"],
    }
