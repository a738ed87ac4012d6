"""Each case runs on every engine; the newer versions run one case of each operation, unless all are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance import IN_FULL, NEWER, Target, open_engine
from conformance_lake import Lake
from harness.services.rest import rest_catalog
from harness.services.running import use

from airflow_provider_floe.engines.base import Engine


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_version: runs on every version of every engine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    everywhere = metafunc.config.getoption("all_versions") or metafunc.definition.get_closest_marker("every_version")
    names = (*IN_FULL, *NEWER) if everywhere else IN_FULL
    metafunc.parametrize("engine", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def whole_lake() -> Iterator[Lake]:
    with use("s3", "rest", "spark-connect-4.1") as services:
        lake = Lake(rest_catalog(services), services)
        yield lake
        lake.close()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, Engine]]:
    with open_engine(request.param) as engine:
        yield request.param, engine


@pytest.fixture
def lake(whole_lake: Lake) -> Iterator[Lake]:
    yield whole_lake
    whole_lake.clean_up()


@pytest.fixture
def target(engine: tuple[str, Engine], lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Target:
    name, opened = engine
    return Target(name, opened, lake, monkeypatch)
