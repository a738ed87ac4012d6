from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from harness.services.rest import rest_catalog
from harness.services.running import use
from spark_submission import Spark


@pytest.fixture(scope="session")
def spark() -> Iterator[Spark]:
    """Spark 3.5 to submit to, on the REST catalog and S3 store."""
    with use("s3", "rest", "spark-submit-3.5") as services:
        yield Spark(services["spark-submit-3.5"], rest_catalog(services))


@pytest.fixture
def namespace(spark: Spark) -> str:
    name = f"spark_{uuid4().hex[:8]}"
    spark.catalog.create_namespace(name)
    return name
