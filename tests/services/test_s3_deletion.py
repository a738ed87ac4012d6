"""Expiry and orphan removal on S3: moto's server, pyiceberg's S3 file system beside obstore."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from harness.environments import environment
from harness.tables import SCHEMA, context_for, request_for, rows, rows_digest
from pyarrow.fs import S3FileSystem
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from airflow_provider_floe.engines.local import deletion, expire, orphans
from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.iceberg import listing
from airflow_provider_floe.iceberg.listing import delete_files, list_files
from airflow_provider_floe.policies.model import ExpireSnapshots, OrphanCleanup
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

NAMES = ("data/a.parquet", "data/p=a%2Fb/x y.parquet", "data/é+c/h#1~(2)'[].parquet")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """FileIO properties of an S3 server with a bucket ``lake``."""
    python = environment("moto", ["moto[server]==5.2.5"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [python.with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        properties = {
            "s3.endpoint": f"http://127.0.0.1:{port}",
            "s3.access-key-id": "key",
            "s3.secret-access-key": "secret",
            "s3.region": "us-east-1",
        }
        S3FileSystem(
            access_key="key",
            secret_key="secret",
            endpoint_override=properties["s3.endpoint"],
            region="us-east-1",
            allow_bucket_creation=True,
        ).create_dir("lake")
        yield properties
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def table(s3: dict[str, str], tmp_path: Path) -> Table:
    catalog = SqlCatalog("lake", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"s3://lake/{uuid4()}", **s3)
    catalog.create_namespace("db")
    table = catalog.create_table("db.events", schema=SCHEMA)
    for start in (0, 10):
        table.append(rows(start, 10))
    table.overwrite(rows(100, 10))
    return table


def stored(table: Table) -> set[str]:
    return {file.path for batch in list_files(table.io, table.location()) for file in batch}


def put(table: Table, name: str, content: bytes = b"stray") -> str:
    path = f"{table.location()}/{name}"
    with table.io.fs_by_scheme("s3", "lake").open_output_stream(path.removeprefix("s3://")) as stream:
        stream.write(content)
    return path


def run_orphans(table: Table, operation_id: str = "op-1", *, days: int = 10, **settings: Any) -> Any:
    """As if ``days`` had passed since the files were written."""
    context = context_for(table, time=datetime.now(UTC) + timedelta(days=days))
    request = request_for(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(**settings), operation_id=operation_id)
    return orphans.run(request, context, 0), context.journal


def test_expiry_deletes_what_nothing_references(table: Table) -> None:
    digest, before = rows_digest(table), stored(table)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1))
    context = context_for(table)
    result = expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, settings), context, 0)
    table.refresh()
    assert result.files_deleted == len(context.journal.deleted) > 4
    assert before - stored(table) == set(context.journal.deleted)
    assert rows_digest(table) == digest


@pytest.mark.parametrize("obstore", [True, False])
def test_orphans_go_and_come_back(table: Table, obstore: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not obstore:
        monkeypatch.setattr(listing, "s3_store", lambda io, path: None)
    before = stored(table)
    strays = {put(table, name) for name in NAMES}
    table.io.fs_by_scheme("s3", "lake").create_dir(f"{table.location().removeprefix('s3://')}/data/a-folder-marker")
    assert stored(table) == before | strays
    result, journal = run_orphans(table, quarantine=timedelta(days=7))
    assert result.files_quarantined == len(strays)
    assert result.details["orphans"] == len(strays)
    assert stored(table) & strays == set()
    entries = [(d.path, str(d.quarantined_to)) for d in journal.deletions]
    assert deletion.restore(table.io, entries) == len(strays)
    assert stored(table) == before | strays
    result, _ = run_orphans(table)
    assert result.files_deleted == len(strays)
    assert stored(table) == before
    assert not run_orphans(table)[0].changed


def test_the_scheme_of_the_location_does_not_matter(table: Table) -> None:
    stray = put(table, "data/lost.parquet")
    before = stored(table)
    result, _ = run_orphans(table, location=table.location().replace("s3://", "s3a://") + "/data")
    assert result.files_deleted == 1
    assert stored(table) == before - {stray}


def test_empty_objects_are_files(table: Table) -> None:
    put(table, "data/empty", b"")
    assert run_orphans(table)[0].files_deleted == 1


def test_deleting_what_is_gone_is_no_error_and_a_missing_bucket_is_one(table: Table) -> None:
    delete_files(table.io, [f"{table.location()}/never"])
    with pytest.raises(UnsafeOperation, match="cannot be listed"):
        list(list_files(table.io, "s3://no-such-bucket/t"))
