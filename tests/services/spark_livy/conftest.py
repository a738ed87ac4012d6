from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.tables import SCHEMA
from livy_spark import CATALOG, LIVY, Livy

from airflow_provider_floe.engines.spark import job


@pytest.fixture(scope="session")
def services() -> Iterator[dict[str, dict[str, str]]]:
    with use("s3", "rest", "livy") as facts:
        yield {name: dict(fact) for name, fact in facts.items()}


@pytest.fixture(scope="session")
def livy(services: dict[str, dict[str, str]]) -> Iterator[Livy]:
    """Livy on the REST catalog and S3 store, with the connections to both as a deployment has them."""
    facts = services["livy"]
    job_file = Path(facts["files"], f"floe_job_{job.version()}.py")
    job_file.write_text(Path(job.__file__).read_text())
    catalog = rest_catalog(services)
    home = f"livy_home_{uuid4().hex[:8]}"
    catalog.create_namespace(home)
    catalog.create_table((home, "probes"), schema=SCHEMA)  # other tests look at what is stored below their tables
    extra = {
        "floe_livy_probe_table": f"{CATALOG}.{home}.probes",
        "floe_catalogs": {CATALOG: facts["catalog"]},
        "floe_livy_job_file": f"file://{job_file}",
        "floe_livy_batch": {"conf": {"spark.sql.shuffle.partitions": "1"}},
    }
    connection = {"conn_type": "livy", "host": facts["host"], "port": int(facts["port"]), "extra": extra}
    fields = {"catalog_kind": "rest", "uri": services["rest"]["uri"], "properties": file_io_properties(services["s3"])}
    lake = {"conn_type": "floe", "extra": {**fields, "catalog_name": CATALOG}}
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv(f"AIRFLOW_CONN_{LIVY.upper()}", json.dumps(connection))
        variables.setenv("AIRFLOW_CONN_LAKE_OF_LIVY", json.dumps(lake))
        variables.setenv("AIRFLOW__FLOE__CATALOGS", "lake_of_livy")
        yield Livy(facts, catalog, extra)


@pytest.fixture
def namespace(livy: Livy) -> str:
    name = f"livy_{uuid4().hex[:8]}"
    livy.catalog.create_namespace(name)
    return name
