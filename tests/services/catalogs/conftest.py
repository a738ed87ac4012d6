"""Every catalog under test, started when it is first needed; each test has a namespace of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from catalog_tables import Lake
from harness.catalogs.base import CatalogUnderTest, Place
from harness.catalogs.registry import catalogs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "catalogs" in item.path.parts:
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session")
def opened() -> Iterator[Callable[[CatalogUnderTest], Place]]:
    """Starts catalogs, and keeps them until the end: tests of one come back to it after those of another."""
    places: dict[str, Place] = {}
    with ExitStack() as stack:

        def place(catalog: CatalogUnderTest) -> Place:
            if catalog.name not in places:
                places[catalog.name] = stack.enter_context(catalog.open())
            return places[catalog.name]

        yield place


@pytest.fixture(params=catalogs(), ids=lambda catalog: catalog.name)
def under_test(request: pytest.FixtureRequest) -> CatalogUnderTest:
    found: CatalogUnderTest = request.param
    return found


@pytest.fixture
def place(under_test: CatalogUnderTest, opened: Callable[[CatalogUnderTest], Place]) -> Place:
    return opened(under_test)


@pytest.fixture
def lake(under_test: CatalogUnderTest, place: Place, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Floe's client of the catalog, and an empty namespace in it."""
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(place.connection))
    found = Lake.of(place, f"n{uuid4().hex[:10]}")
    found.catalog.create_namespace((found.namespace,))
    return found
