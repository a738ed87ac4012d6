"""The services that there are, by name."""

from __future__ import annotations

from harness.services.base import Service
from harness.services.hive_metastore import HIVE_METASTORE
from harness.services.livy import LIVY
from harness.services.nessie import NESSIE
from harness.services.rest import REST, REST_ON_DISK
from harness.services.s3 import S3
from harness.services.seaweedfs import SEAWEEDFS
from harness.services.spark import SPARKS
from harness.services.trino import TRINOS

SERVICES: dict[str, Service] = {
    service.name: service
    for service in (S3, SEAWEEDFS, REST, REST_ON_DISK, NESSIE, HIVE_METASTORE, *TRINOS, *SPARKS, LIVY)
}


def find(name: str) -> Service:
    """The service of that name.

    :raises RuntimeError: naming the services that there are.
    """
    if name not in SERVICES:
        raise RuntimeError(f"no service {name!r}: there are {', '.join(SERVICES)}")
    return SERVICES[name]
