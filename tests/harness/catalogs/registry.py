"""Every catalog that the suite of ``tests/services/catalogs`` runs against."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness.catalogs.base import CatalogUnderTest, Place
from harness.catalogs.servers import HIVE, NESSIE, REST, SEAWEEDFS, SQL

VARIABLE = "FLOE_TEST_CATALOG_"
"""``FLOE_TEST_CATALOG_NESSIE='{"conn_type": "floe", ...}'`` points the tests of a catalog at another server."""


def catalogs() -> list[CatalogUnderTest]:
    """The catalogs, each at the server that the environment names, else at one that the tests start."""
    return [_elsewhere(one) for one in (REST, SEAWEEDFS, NESSIE, HIVE, SQL)]


def _elsewhere(catalog: CatalogUnderTest) -> CatalogUnderTest:
    connection = os.environ.get(VARIABLE + catalog.name.upper().replace("-", "_"))
    if connection is None:
        return catalog

    @contextmanager
    def given() -> Iterator[Place]:
        yield Place(json.loads(connection))

    return replace(catalog, open=given)
