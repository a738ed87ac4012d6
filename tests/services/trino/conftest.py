"""A Trino server on the REST catalog and S3 store, for the whole session; each test has a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from harness.services.base import Facts
from harness.services.rest import rest_catalog
from harness.services.running import use
from pyiceberg.catalog.rest import RestCatalog
from trino_server import Server

from airflow_provider_floe.engines.trino.engine import TrinoEngine


@pytest.fixture(scope="session")
def services() -> Iterator[dict[str, Facts]]:
    with use("s3", "rest", "trino-476") as running:
        yield running


@pytest.fixture(scope="session")
def server(services: dict[str, Facts]) -> Server:
    return Server(services["trino-476"], rest_catalog(services))


@pytest.fixture(scope="session")
def engine(server: Server) -> TrinoEngine:
    """On tables of catalog ``lake``, and of ``guarded`` with Trino's own minimum retention, as a policy names them."""
    return server.engine({"lake": "lake", "held": "guarded"})


@pytest.fixture(scope="session")
def later_engine(server: Server) -> TrinoEngine:
    """One that takes the clock of a test for the real one."""
    return server.engine({"lake": "lake", "held": "guarded"}, clock_tolerance=timedelta.max)


@pytest.fixture
def catalog(server: Server) -> RestCatalog:
    return server.catalog


@pytest.fixture
def namespace(catalog: RestCatalog) -> str:
    name = f"n{uuid4().hex[:12]}"
    catalog.create_namespace(name)
    return name
