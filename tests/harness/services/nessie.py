"""Project Nessie: an Iceberg REST catalog with branches, and its native API, its tables in the S3 store.

To ``warehouse`` clients bring their own keys; for ``vended`` Nessie hands out keys that it asks the store's STS for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.services.base import Facts, Service, Start
from harness.services.java import java_home
from harness.services.maven import artifact
from harness.services.process import answers, free_port, launch, stop, wait_until

VERSION = "0.99.0"
WAREHOUSE, VENDED = "warehouse", "vended"

_SERVICE = "nessie.catalog.service.s3"
_ROLE = "arn:aws:iam::123456789012:role/nessie"


def _install() -> Path:
    return artifact(f"org.projectnessie.nessie:nessie-quarkus:{VERSION}:jar:runner")


def _start(home: Path, needs: Mapping[str, Facts]) -> Start:
    s3 = needs["s3"]
    port, management = free_port(), free_port()
    while management == port:
        management = free_port()
    address = f"http://127.0.0.1:{port}"
    log = home / "nessie.log"
    process = launch(
        [
            *(java_home(21) / "bin/java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(f"-D{name}={value}" for name, value in _settings(port, management, s3).items()),
            *("-jar", _install()),
        ],
        log=log,
        cwd=home,
    )
    wait_until(process, log, lambda: answers(f"{address}/api/v2/config"))
    try:
        _create_bucket(s3)
    except Exception:
        stop(process)
        raise
    facts = {"uri": f"{address}/iceberg", "native_uri": f"{address}/api/v2", "version": VERSION}
    return Start({**facts, "warehouse": WAREHOUSE, "location": f"s3://{s3['bucket']}/nessie"}, process)


def _settings(port: int, management: int, s3: Facts) -> dict[str, str]:
    default = f"{_SERVICE}.default-options"
    vended = f"{_SERVICE}.buckets.{VENDED}"
    return {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": str(port),
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": str(management),
        "quarkus.log.level": "WARN",
        "quarkus.otel.sdk.disabled": "true",
        "nessie.version.store.type": "IN_MEMORY",
        "nessie.server.send-stacktrace-to-client": "false",
        "nessie.catalog.default-warehouse": WAREHOUSE,
        f"nessie.catalog.warehouses.{WAREHOUSE}.location": f"s3://{s3['bucket']}/nessie",
        f"nessie.catalog.warehouses.{VENDED}.location": f"s3://{VENDED}/nessie",
        f"{default}.region": s3["region"],
        f"{default}.endpoint": s3["endpoint"],
        f"{default}.path-style-access": "true",
        f"{default}.request-signing-enabled": "false",
        f"{default}.access-key": "urn:nessie-secret:quarkus:store.keys",
        "store.keys.name": s3["key"],
        "store.keys.secret": s3["secret"],
        f"{vended}.client-iam.enabled": "true",
        f"{vended}.client-iam.assume-role": _ROLE,
        f"{vended}.sts-endpoint": s3["endpoint"],
    }


def _create_bucket(s3: Facts) -> None:
    from pyarrow.fs import S3FileSystem  # here, since every keeper loads this module

    store = S3FileSystem(
        access_key=s3["key"],
        secret_key=s3["secret"],
        endpoint_override=s3["endpoint"],
        region=s3["region"],
        allow_bucket_creation=True,
    )
    store.create_dir(VENDED)


NESSIE = Service("nessie", _install, _start, needs=("s3",))
