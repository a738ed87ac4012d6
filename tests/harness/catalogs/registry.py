"""Every catalog that the suite of ``tests/services/catalogs`` runs against."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness.catalogs.base import CatalogUnderTest, Place
from harness.catalogs.gateways import GRAVITINO, LAKEKEEPER, POLARIS
from harness.catalogs.servers import HIVE, NESSIE, REST, SEAWEEDFS, SQL, wrong_places

VARIABLE = "FLOE_TEST_CATALOG_"
"""``FLOE_TEST_CATALOG_NESSIE='{"conn_type": "floe", ...}'`` points the tests of a catalog at another server."""


STARTED = (REST, SEAWEEDFS, NESSIE, HIVE, SQL, POLARIS, LAKEKEEPER, GRAVITINO)
"""Those that the tests start themselves, which is what the documentation speaks of. To add one, say in a
``CatalogUnderTest`` how it is started and what it refuses, list it here, and give it a row in ``docs/catalogs.md``.
"""


def catalogs() -> list[CatalogUnderTest]:
    """The catalogs, each at the server that the environment names, else at one that the tests start."""
    return [_elsewhere(one) for one in STARTED]


def _elsewhere(catalog: CatalogUnderTest) -> CatalogUnderTest:
    """The catalog where the environment says that it is; engines are not set up for it there."""
    variable = os.environ.get(VARIABLE + catalog.name.upper().replace("-", "_"))
    if variable is None:
        return catalog
    connection = json.loads(variable)

    @contextmanager
    def given() -> Iterator[Place]:
        yield Place(connection, wrong_places(connection) if "uri" in connection["extra"] else {})

    return replace(catalog, open=given, engines=(), imitated=False)
