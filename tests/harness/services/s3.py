"""An S3 store: moto's server, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.environments import environment
from harness.services.base import Facts, Service, Start
from harness.services.process import answers, free_port, launch, wait_until

BUCKET = "warehouse"
_KEY, _SECRET, _REGION = "test-key", "test-secret", "us-east-1"


def _install() -> Path:
    return environment("moto", ["moto[server]==5.2.5"])


def _start(home: Path, _: Mapping[str, Facts]) -> Start:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    log = home / "s3.log"
    process = launch([_install().with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)], log=log, cwd=home)
    wait_until(process, log, lambda: answers(f"{endpoint}/moto-api/"))
    from pyarrow.fs import S3FileSystem  # here, since every keeper loads this module

    store = S3FileSystem(
        access_key=_KEY, secret_key=_SECRET, endpoint_override=endpoint, region=_REGION, allow_bucket_creation=True
    )
    store.create_dir(BUCKET)
    facts = {"endpoint": endpoint, "key": _KEY, "secret": _SECRET, "region": _REGION, "bucket": BUCKET}
    return Start(facts, process)


def file_io_properties(s3: Facts) -> dict[str, str]:
    """pyiceberg's FileIO properties for the store."""
    return {
        "s3.endpoint": s3["endpoint"],
        "s3.access-key-id": s3["key"],
        "s3.secret-access-key": s3["secret"],
        "s3.region": s3["region"],
    }


S3 = Service("s3", _install, _start)
