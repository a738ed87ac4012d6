"""Which combinations run: those that hold every pair, on disk; all of them, and in S3 too, with ``--full-matrix``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from harness.feature_tables import DIMENSIONS, Warehouse, possible
from harness.pairwise import cross_product, pairwise
from harness.services.base import Facts
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.tables import NAMESPACE, lake
from pyiceberg.catalog.sql import SqlCatalog


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "combination" not in metafunc.fixturenames:
        return
    full = metafunc.config.getoption("full_matrix")
    combinations = list((cross_product if full else pairwise)(DIMENSIONS, possible))
    metafunc.parametrize("combination", combinations, ids=["-".join(one.values()) for one in combinations])
    metafunc.parametrize("file_system", ("local", "s3") if full else ("local",), scope="session")


@pytest.fixture(scope="session")
def store(file_system: str) -> Iterator[Facts | None]:
    with ExitStack() as stack:
        yield stack.enter_context(use("s3"))["s3"] if file_system == "s3" else None


@pytest.fixture
def warehouse(tmp_path: Path, store: Facts | None) -> Warehouse:
    if store is None:
        return Warehouse(lake(tmp_path), None)
    catalog = SqlCatalog(
        "lake",
        uri=f"sqlite:///{tmp_path}/catalog.db",
        warehouse=f"s3://{store['bucket']}/{uuid4().hex}",
        **file_io_properties(store),
    )
    catalog.create_namespace(NAMESPACE)
    return Warehouse(catalog, store)
