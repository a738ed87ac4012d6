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

ALWAYS, ALSO = ("trino-476", "spark-3.5"), ("trino-483", "spark-4.1")
"""Versions of engines that tests with ``version`` run on, and those that ``--all-versions`` adds."""
ONLY_WITH_ALL = {("sql", "spark-3.5")}
"""Catalogs and engines that ``--all-versions`` adds, too."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on every catalog what names none, and on every version of the engines that speak to it what asks for one."""
    if "version" in metafunc.fixturenames:
        everywhere = metafunc.config.getoption("all_versions")
        tested = [one for one in catalogs() if everywhere or not (one.imitated or one.name == "iceberg-rest")]
        versions = ALWAYS + ALSO if everywhere else ALWAYS
        cases = [
            (one, version)
            for one in tested
            for version in (ALWAYS if one.imitated else versions)
            if version.partition("-")[0] in one.engines and (everywhere or (one.name, version) not in ONLY_WITH_ALL)
        ]
        ids = [f"{one.name}-{version}" for one, version in cases]
        metafunc.parametrize(("under_test", "version"), cases, ids=ids, indirect=["under_test"])
        return
    named = [name for mark in metafunc.definition.iter_markers("parametrize") for name in mark.args[0].split(",")]
    if "under_test" in metafunc.fixturenames and "under_test" not in named:
        metafunc.parametrize("under_test", catalogs(), ids=lambda catalog: catalog.name, indirect=True)


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


@pytest.fixture
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
