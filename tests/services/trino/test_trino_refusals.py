"""What the server that is there can do is asked of it; every setting is honoured or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from harness.services.process import free_port
from pyiceberg.catalog.rest import RestCatalog
from trino.dbapi import connect
from trino_server import Server, now_context, run, small_files, stored

from airflow_provider_floe.engines.capabilities import judge
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.errors import (
    ConfigurationError,
    EngineUnavailable,
    UnsupportedSetting,
    UnsupportedTableFeature,
)
from airflow_provider_floe.health.report import TableFacts
from airflow_provider_floe.planning.engine_choice import choose_engine
from airflow_provider_floe.policies.model import (
    SETTINGS_MODELS,
    ComputeTableStats,
    ExpireSnapshots,
    OperationSettings,
    OrphanCleanup,
    Policy,
    RewriteDataFiles,
    RewriteManifests,
)
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

FACTS = TableFacts(uuid="u", location="s3://b/t", metadata_location="m", format_version=2)

REFUSED: dict[Operation, dict[str, OperationSettings]] = {
    Operation.REWRITE_DATA_FILES: {
        "strategy": RewriteDataFiles(strategy="SORT"),
        "deleteFileThreshold": RewriteDataFiles(delete_file_threshold=2),
        "sortOrder": RewriteDataFiles(strategy="SORT", sort_order=["id"]),
        "zOrderColumns": RewriteDataFiles(strategy="ZORDER", z_order_columns=["id", "text"]),
        "maxFileGroupSizeBytes": RewriteDataFiles(max_file_group_size_bytes=1),
        "maxConcurrentFileGroupRewrites": RewriteDataFiles(max_concurrent_file_group_rewrites=1),
        "partialProgressEnabled": RewriteDataFiles(partial_progress_enabled=True),
        "partialProgressMaxCommits": RewriteDataFiles(partial_progress_max_commits=1),
        "partialProgressMaxFailedCommits": RewriteDataFiles(partial_progress_max_failed_commits=1),
        "rewriteJobOrder": RewriteDataFiles(rewrite_job_order="BYTES_ASC"),
        "useStartingSequenceNumber": RewriteDataFiles(use_starting_sequence_number=False),
        "removeDanglingDeletes": RewriteDataFiles(remove_dangling_deletes=True),
        "outputSpecId": RewriteDataFiles(output_spec_id=0),
    },
    Operation.REWRITE_MANIFESTS: {
        "specId": RewriteManifests(spec_id=0),
        "stagingLocation": RewriteManifests(staging_location="s3://b/t"),
        "sortBy": RewriteManifests(sort_by=["part"]),
        "rewriteIf": RewriteManifests.model_validate({"rewriteIf": {"specId": 0}}),
    },
    Operation.COMPUTE_TABLE_STATS: {},
    Operation.EXPIRE_SNAPSHOTS: {
        "expireSnapshotId": ExpireSnapshots(expire_snapshot_id=1),
        "cleanExpiredMetadata": ExpireSnapshots(clean_expired_metadata=True),
        "allowBelowTableRetention": ExpireSnapshots(allow_below_table_retention=True),
        "quarantine": ExpireSnapshots(quarantine=timedelta(days=1)),
    },
    Operation.REMOVE_ORPHAN_FILES: {
        "location": OrphanCleanup(location="s3://b/t/data"),
        "prefixMismatchMode": OrphanCleanup(prefix_mismatch_mode="DELETE"),
        "excludePatterns": OrphanCleanup(exclude_patterns=["*.x"]),
        "quarantine": OrphanCleanup(quarantine=timedelta(days=1)),
    },
}
"""What Trino 476 cannot honour."""


@pytest.mark.parametrize("operation", Operation)
def test_every_setting_is_honoured_or_refused(engine: TrinoEngine, operation: Operation) -> None:
    capability = engine.probe().operation(operation)
    if not capability.supported:
        assert "engine local or spark" in capability.reason
        return
    settings = {field.alias or name for name, field in SETTINGS_MODELS[operation].model_fields.items()}
    assert settings == capability.honoured | capability.refused.keys()
    assert not capability.honoured & capability.refused.keys()
    assert set(capability.refused) == set(REFUSED[operation])
    assert all("use engine" in reason or "or use" in reason for reason in capability.refused.values())


@pytest.mark.parametrize(
    ("operation", "name"), [(operation, name) for operation, found in REFUSED.items() for name in found]
)
def test_a_setting_that_cannot_be_honoured_is_refused_by_name(
    engine: TrinoEngine, operation: Operation, name: str
) -> None:
    verdict = judge(engine.probe(), operation, REFUSED[operation][name], FACTS, catalog="lake")
    assert any(f"setting {name}=" in refusal for refusal in verdict.refusals)


def test_without_a_plan_it_is_refused_all_the_same(engine: TrinoEngine, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 2)
    before = stored(table)
    for operation, settings in REFUSED.items():
        for name, setting in settings.items():
            with pytest.raises(UnsupportedSetting, match=f"setting {name}="):
                run(engine, table, operation, setting)
    assert stored(table) == before


def test_retention_below_the_servers_minimum_is_refused_in_the_plan(engine: TrinoEngine) -> None:
    policy = Policy.model_validate(
        {"name": "p", "tablePattern": "*.*.*", "engine": "trino", "expireSnapshots": {}, "orphanCleanup": {}}
    )
    found = engine.probe()
    for operation, short, long in (
        (Operation.EXPIRE_SNAPSHOTS, ExpireSnapshots(max_snapshot_age=timedelta(days=6)), ExpireSnapshots()),
        (Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(), OrphanCleanup(retention_period_in_days=7)),
    ):
        for catalog, settings, allowed in (("held", short, False), ("held", long, True), ("lake", short, True)):
            choice = choose_engine(operation, policy, settings, FACTS, 1, {"trino": found}, {}, catalog=catalog)
            assert (choice.engine == "trino") is allowed
            if not allowed:
                assert "minimum retention of 7 days" in choice.refusals[0]


def test_statistics_are_refused_where_the_connection_has_them_switched_off(server: Server) -> None:
    off = {"lake.extended_statistics_enabled": "false"}
    place = {"host": server.facts["host"], "port": int(server.facts["port"])}
    for properties, able in (({}, True), (off, False)):
        found = TrinoEngine(partial(connect, **place, user="tester", session_properties=properties), {"lake": "lake"})
        verdict = judge(found.probe(), Operation.COMPUTE_TABLE_STATS, ComputeTableStats(), FACTS, catalog="lake")
        assert verdict.allowed is able
        assert able or "extended_statistics_enabled is off" in verdict.refusals[0]


def test_the_servers_minimum_holds_even_without_a_plan(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 3)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(milliseconds=1))
    result = run(engine, table, Operation.EXPIRE_SNAPSHOTS, settings, catalog="held")
    assert (result.changed, len(table.metadata.snapshots)) == (False, 3)


def test_catalogs_are_known_by_the_names_of_policies(server: Server, engine: TrinoEngine) -> None:
    found = engine.probe()
    refusals = judge(found, Operation.EXPIRE_SNAPSHOTS, ExpireSnapshots(), FACTS, catalog="prod").refusals
    assert refusals == (
        "it knows no catalog 'prod' (only held, lake): add it to floe_catalogs in the extra of connection 'trino_test'",
    )
    same_names = server.engine({}).probe()
    assert {"lake", "guarded"} <= set(same_names.catalogs or {})  # other tests may have more on the same server
    half = server.engine({"lake": "lake", "prod": "nowhere", "odd": "system"}).probe()
    for catalog, why in (("prod", "does not exist"), ("odd", "is one of connector system")):
        refusals = judge(half, Operation.EXPIRE_SNAPSHOTS, ExpireSnapshots(), FACTS, catalog=catalog).refusals
        assert why in refusals[0]
        assert all(name in refusals[0] for name in ("guarded", "lake"))
    with pytest.raises(ConfigurationError, match="maps 'prod' to 'nowhere', which does not exist"):
        server.engine({"prod": "nowhere"}).probe()


def test_another_table_of_the_same_name_is_not_touched(
    server: Server, engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 3)
    other = small_files(catalog, (namespace, "other"), 1)
    context = now_context(other)
    snapshots = len(table.metadata.snapshots)
    with pytest.raises(ConfigurationError, match="another table"):
        run(engine, table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    assert len(table.metadata.snapshots) == snapshots


def test_a_table_that_trino_does_not_see_is_named_with_what_to_check(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "Upper"), 2)
    with pytest.raises(ConfigurationError, match="case-insensitive name matching"):
        run(engine, table, Operation.REWRITE_DATA_FILES, RewriteDataFiles())


@pytest.mark.parametrize(
    ("operation", "settings"),
    [
        (Operation.REWRITE_DATA_FILES, RewriteDataFiles()),
        (Operation.REWRITE_MANIFESTS, RewriteManifests()),
        (Operation.EXPIRE_SNAPSHOTS, ExpireSnapshots()),
        (Operation.REMOVE_ORPHAN_FILES, OrphanCleanup()),
    ],
)
def test_tables_of_format_version_3_are_refused(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str, operation: Operation, settings: OperationSettings
) -> None:
    table = small_files(catalog, (namespace, "t"), 0, properties={"format-version": "3"})
    with pytest.raises(UnsupportedTableFeature, match="format-v3"):
        run(engine, table, operation, settings)


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    engine = TrinoEngine(lambda: connect("127.0.0.1", port, user="u", max_attempts=1), {}, connection="far_trino")
    with pytest.raises(EngineUnavailable, match=r"'far_trino'.*host, port and protocol"):
        engine.probe()


@contextmanager
def refusing_server(code: int) -> Iterator[int]:
    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(code)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusal)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("code", [401, 403])
def test_refused_credentials_are_named_and_not_told(code: int) -> None:
    with refusing_server(code) as port:
        options = {"user": "u", "http_headers": {"Authorization": "Bearer a-secret"}}
        engine = TrinoEngine(lambda: connect("127.0.0.1", port, **options), {}, connection="far_trino")
        with pytest.raises(ConfigurationError, match="refused the credentials of connection 'far_trino'") as refused:
            engine.probe()
    assert "a-secret" not in str(refused.value)
