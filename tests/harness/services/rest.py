"""An Iceberg REST catalog: the Iceberg project's own test fixture, over SQLite, its tables in the S3 store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.services.base import Facts, Service, Start
from harness.services.java import java_home
from harness.services.maven import libraries
from harness.services.process import answers, free_port, launch, wait_until
from harness.services.s3 import file_io_properties

if TYPE_CHECKING:
    from pyiceberg.catalog.rest import RestCatalog

ICEBERG = "1.10.1"
_DEPENDENCIES = (
    f"org.apache.iceberg:iceberg-open-api:{ICEBERG}:test-fixtures",
    f"org.apache.iceberg:iceberg-core:{ICEBERG}",
    f"org.apache.iceberg:iceberg-core:{ICEBERG}:tests",
    f"org.apache.iceberg:iceberg-aws:{ICEBERG}",
    f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG}",
    "org.apache.hadoop:hadoop-client-runtime:3.4.1",
    "org.apache.hadoop:hadoop-client-api:3.4.1",
    "org.eclipse.jetty:jetty-servlet:11.0.24",
    "org.xerial:sqlite-jdbc:3.46.1.3",
    "org.slf4j:slf4j-simple:2.0.16",
)


def _install() -> Path:
    return libraries(f"iceberg-rest-{ICEBERG}", _DEPENDENCIES)


def _start(store: str, home: Path, needs: Mapping[str, Facts]) -> Start:
    s3 = needs[store]
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    warehouse = f"s3://{s3['bucket']}/rest"
    log = home / "rest.log"
    process = launch(
        [
            *(java_home(17) / "bin/java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{_install()}/*"),
            "org.apache.iceberg.rest.RESTCatalogServer",
        ],
        log=log,
        cwd=home,
        environment={
            "CATALOG_REST_PORT": str(port),
            # With more clients SQLite refuses commits that meet
            "CATALOG_CLIENTS": "1",
            "CATALOG_URI": f"jdbc:sqlite:{home}/catalog.db?journal_mode=WAL&busy_timeout=20000",
            "CATALOG_JDBC_SCHEMA__VERSION": "V1",
            "CATALOG_WAREHOUSE": warehouse,
            "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
            "CATALOG_S3_ENDPOINT": s3["endpoint"],
            "CATALOG_S3_PATH__STYLE__ACCESS": "true",
            "AWS_REGION": s3["region"],
            "AWS_ACCESS_KEY_ID": s3["key"],
            "AWS_SECRET_ACCESS_KEY": s3["secret"],
        },
    )
    wait_until(process, log, lambda: answers(f"{uri}/v1/config"))
    return Start({"uri": uri, "warehouse": warehouse}, process)


REST = Service("rest", _install, partial(_start, "s3"), needs=("s3",))
REST_ON_DISK = Service("rest-on-disk", _install, partial(_start, "seaweedfs"), needs=("seaweedfs",))
"""Another one over the store that takes half the time of a request, and keeps what it stores out of memory."""


def rest_catalog(
    services: Mapping[str, Facts], name: str = "lake", *, properties: Mapping[str, str] = MappingProxyType({})
) -> RestCatalog:
    """pyiceberg's client of the running catalog: who reads what engines leave behind.

    :param services: the facts of ``rest`` and ``s3``.
    """
    from pyiceberg.catalog.rest import RestCatalog  # here, since every keeper loads this module

    return RestCatalog(name, uri=services["rest"]["uri"], **file_io_properties(services["s3"]), **properties)
