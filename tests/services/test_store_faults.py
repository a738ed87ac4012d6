"""The local engine on a store that is slow, busy, cuts answers short or goes away: no half commit, no lost file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from harness.faulty_store import Fault, FaultyStore, Rule, faulty_store
from harness.services.base import Facts
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.tables import FAST_RETRIES, SCHEMA, context_for, request_for, rows, rows_digest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.errors import FloeError
from airflow_provider_floe.iceberg import object_stores, orphan_search
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.iceberg.paths import path_key
from airflow_provider_floe.iceberg.reachability import reachable
from airflow_provider_floe.policies.model import ExpireSnapshots, OrphanCleanup, RewriteDataFiles, RewriteManifests
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

MEMORY = 256 * 1024**2
SETTINGS: dict[Operation, Any] = {
    Operation.REWRITE_DATA_FILES: RewriteDataFiles(),
    Operation.REWRITE_MANIFESTS: RewriteManifests(),
    Operation.EXPIRE_SNAPSHOTS: ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1)),
    Operation.REMOVE_ORPHAN_FILES: OrphanCleanup(),
}
EACH = pytest.mark.parametrize("operation", SETTINGS, ids=lambda one: str(one.value))


@dataclass
class Lake:
    """A table, seen through the proxy as the engine sees it, and past it as the truth is."""

    store: FaultyStore
    table: Table
    truth: Table
    strays: set[str] = field(default_factory=set)

    def run(self, operation: Operation) -> OperationResult:
        request = request_for(self.table, operation, SETTINGS[operation], operation_id=str(uuid4()))
        return LocalEngine(MEMORY).execute(request, context_for(self.table))

    def stored(self) -> set[str]:
        return {path_key(file.path) for batch in list_files(self.truth.io, self.truth.location()) for file in batch}

    def check(self, digest: list[tuple[Any, ...]]) -> None:
        """Every row is there, and every file that any snapshot needs."""
        self.store.reset()
        self.truth.refresh()
        assert rows_digest(self.truth) == digest
        needed = {path_key(file.path) for file in reachable(self.truth)}
        assert needed - self.stored() == set()


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Facts]:
    name = getattr(request, "param", "s3")
    with use(name) as facts:
        yield facts[name]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_stores, "RETRY", timedelta(seconds=3))


@pytest.fixture
def lake(server: Facts, tmp_path: Path) -> Iterator[Lake]:
    with faulty_store(server["endpoint"]) as store:
        warehouse = f"s3://{server['bucket']}/{uuid4()}"
        uri = f"sqlite:///{tmp_path}/catalog.db"
        truth = SqlCatalog("lake", uri=uri, warehouse=warehouse, **file_io_properties(server))
        truth.create_namespace("db")
        seen = SqlCatalog("lake", uri=uri, warehouse=warehouse, **file_io_properties({**server, "endpoint": store.uri}))
        table = truth.create_table("db.events", schema=SCHEMA, properties=FAST_RETRIES)
        for start in (0, 10, 20):
            table.append(rows(start, 10))
        table.overwrite(rows(100, 10))
        for start in (200, 210, 220):
            table.append(rows(start, 10))
        strays = {f"{table.location()}/data/stray-{number}.parquet" for number in range(3)}
        for stray in strays:
            with table.io.new_output(stray).create() as stream:
                stream.write(b"stray")
        yield Lake(store, seen.load_table("db.events"), table, {path_key(stray) for stray in strays})


@EACH
def test_a_store_that_goes_away_at_any_moment_loses_nothing(lake: Lake, operation: Operation) -> None:
    digest = rows_digest(lake.truth)
    done, errors = False, []
    faults = cycle((Fault.BUSY, Fault.RESET, Fault.LOST_ANSWER))
    for skip, fault in zip((3, 11, 20, 29, 40, 52, 70, 100), faults, strict=False):
        lake.store.reset(Rule(fault, skip=skip))
        try:
            done = lake.run(operation).changed
        except FloeError as error:
            errors.append(error)
        lake.check(digest)
        if done:
            break
    assert errors
    for error in errors:
        assert "s3://" in str(error) or "storage failed" in str(error) or "events" in str(error)
    if not done:  # it had committed when the store went away
        lake.run(operation)
        lake.check(digest)
    if operation is Operation.REMOVE_ORPHAN_FILES:
        assert not lake.strays & lake.stored()


@EACH
def test_a_store_that_is_busy_now_and_then_is_asked_again(lake: Lake, operation: Operation) -> None:
    digest = rows_digest(lake.truth)
    lake.store.reset(Rule(Fault.BUSY, once=True))
    result = lake.run(operation)
    assert lake.store.hits > 10
    assert result.changed
    lake.check(digest)


@EACH
def test_answers_that_are_cut_short_are_never_taken_for_whole(lake: Lake, operation: Operation) -> None:
    digest = rows_digest(lake.truth)
    before = lake.stored()
    errors = 0
    for skip in (1, 6):
        lake.store.reset(Rule(Fault.CUT, methods="GET", skip=skip))
        try:
            lake.run(operation)
        except FloeError:
            errors += 1
            assert before <= lake.stored()
        lake.check(digest)
    assert errors


def test_a_store_that_says_nothing_is_given_up(lake: Lake) -> None:
    digest = rows_digest(lake.truth)
    lake.table.catalog.properties |= {"s3.request-timeout": "2", "s3.connect-timeout": "2"}
    lake.table.refresh()
    lake.store.reset(Rule(Fault.SILENT, methods="GET", skip=3))
    with pytest.raises(FloeError):
        lake.run(Operation.REMOVE_ORPHAN_FILES)
    assert lake.store.hits
    lake.check(digest)
    assert lake.strays <= lake.stored()


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_all_operations_on_a_store_that_checks_signatures(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_search, "_SPLIT_FROM", 1)
    digest = rows_digest(lake.truth)
    for operation in (Operation.REWRITE_MANIFESTS, Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS):
        assert lake.run(operation).changed
        lake.check(digest)
    assert lake.run(Operation.REMOVE_ORPHAN_FILES).details["orphans"] == len(lake.strays)
    lake.check(digest)
    assert not lake.strays & lake.stored()
