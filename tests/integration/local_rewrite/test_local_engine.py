"""The embedded engine as others see it: what it says that it can, its start-up test, and who else may register."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyiceberg
import pytest
from harness.tables import context_for, lake, request_for, small_files
from pyiceberg.manifest import ManifestWriterV2

from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.engines.capabilities import TableFeature, judge
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.engines.local.guards import refuse_unsupported
from airflow_provider_floe.engines.registry import load_engine_factories
from airflow_provider_floe.errors import ConfigurationError, UnsupportedTableFeature
from airflow_provider_floe.health.report import TableFacts
from airflow_provider_floe.iceberg.files import FileContent
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.policies.model import (
    SETTINGS_MODELS,
    ExpireSnapshots,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
)
from airflow_provider_floe.tables import Operation

MEMORY = 256 * 1024**2


def facts(*features: TableFeature) -> TableFacts:
    return TableFacts(
        uuid="u",
        location="file:///t",
        metadata_location="file:///t/m.json",
        format_version=2,
        features=tuple(feature.value for feature in features),
    )


@pytest.mark.parametrize("operation", list(Operation))
def test_every_setting_is_honoured_or_refused(operation: Operation) -> None:
    capability = LocalEngine(MEMORY).probe().operation(operation)
    wires = {field.alias or name for name, field in SETTINGS_MODELS[operation].model_fields.items()}
    if not capability.supported:
        assert "use engine spark or trino" in capability.reason
        return
    assert capability.honoured | capability.refused.keys() == wires
    assert not capability.honoured & capability.refused.keys()


@pytest.mark.parametrize(
    ("operation", "feature", "words"),
    [
        (Operation.REWRITE_DATA_FILES, TableFeature.NON_PARQUET_FILES, "spark"),
        (Operation.REWRITE_POSITION_DELETE_FILES, TableFeature.ENCRYPTED, "encryption"),
        (Operation.REWRITE_MANIFESTS, TableFeature.ENCRYPTED, "encryption"),
        (Operation.EXPIRE_SNAPSHOTS, TableFeature.GC_DISABLED, "gc.enabled"),
        (Operation.REMOVE_ORPHAN_FILES, TableFeature.ENCRYPTED, "encryption"),
    ],
)
def test_a_table_that_cannot_be_done_is_refused_with_a_way_out(
    operation: Operation, feature: TableFeature, words: str
) -> None:
    verdict = judge(LocalEngine(MEMORY).probe(), operation, SETTINGS_MODELS[operation](), facts(feature))
    assert not verdict.allowed
    assert words in verdict.refusals[0]


def test_deletes_branches_and_evolved_tables_are_allowed() -> None:
    features = (
        TableFeature.FORMAT_V1,
        TableFeature.FORMAT_V3,
        TableFeature.DELETION_VECTORS,
        TableFeature.POSITION_DELETES,
        TableFeature.EQUALITY_DELETES,
        TableFeature.BRANCHES,
        TableFeature.TAGS,
        TableFeature.SPEC_EVOLUTION,
        TableFeature.NAME_MAPPING,
        TableFeature.NESTED_TYPES,
    )
    verdict = judge(LocalEngine(MEMORY).probe(), Operation.REWRITE_DATA_FILES, RewriteDataFiles(), facts(*features))
    assert verdict.allowed


def test_a_pyiceberg_that_behaves_otherwise_is_refused_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_without_sequence_number(self: Any, entry: Any) -> Any:
        entry.sequence_number = None
        return entry

    monkeypatch.setattr(ManifestWriterV2, "prepare_entry", add_without_sequence_number)
    with pytest.raises(ConfigurationError, match=f"pyiceberg {pyiceberg.__version__} .*install pyiceberg"):
        LocalEngine(MEMORY).probe()


@pytest.mark.parametrize(
    "settings",
    [RewriteDataFiles(), RewriteManifests(), ExpireSnapshots(retain_last=1), OrphanCleanup()],
    ids=lambda settings: type(settings).__name__,
)
def test_each_operation_runs(tmp_path: Path, settings: Any) -> None:
    operation = next(one for one, model in SETTINGS_MODELS.items() if isinstance(settings, model))
    table = small_files(lake(tmp_path), 3)
    result = LocalEngine(MEMORY).execute(request_for(table, operation, settings), context_for(table))
    assert result.changed is (operation is not Operation.REMOVE_ORPHAN_FILES)


def test_the_local_engine_is_registered() -> None:
    engine = load_engine_factories()["local"](memory_limit_bytes=MEMORY)
    assert isinstance(engine, Engine)
    assert engine.name == "local"


ELSEWHERE = """
class Elsewhere:
    name = "elsewhere"
    def __init__(self, *, memory_limit_bytes): self.memory = memory_limit_bytes
    def probe(self): return None
    def execute(self, request, context): return None

def broken(*, memory_limit_bytes): return object()
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "floe_elsewhere.py").write_text(ELSEWHERE)
    info = tmp_path / "floe_elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: floe-elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[airflow_provider_floe.engines]\n"
        "elsewhere = floe_elsewhere:Elsewhere\n"
        "broken = floe_elsewhere:broken\n"
        "missing = floe_nowhere:Engine\n"
        "local = floe_elsewhere:Elsewhere\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("third_party")
def test_a_third_party_registers_an_engine() -> None:
    factories = load_engine_factories()
    assert factories["elsewhere"](memory_limit_bytes=7).memory == 7  # type: ignore[attr-defined]
    assert isinstance(factories["local"](memory_limit_bytes=MEMORY), LocalEngine)


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(("name", "words"), [("broken", "has no name"), ("missing", "floe_nowhere:Engine")])
def test_a_third_party_that_makes_no_engine_is_named(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"engine '{name}'.*{words}"):
        load_engine_factories()[name](memory_limit_bytes=7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_format": "AVRO"}, "AVRO files .*spark"),
        ({"file_format": "ORC", "content": FileContent.POSITION_DELETES}, "ORC files .*spark"),
    ],
)
def test_what_a_plan_did_not_see_is_refused_at_the_file(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    table = small_files(lake(tmp_path), 2)
    files = list(live_files(table.io, snapshot_manifests(table)))
    refuse_unsupported(table, files)
    with pytest.raises(UnsupportedTableFeature, match=words):
        refuse_unsupported(table, [*files, replace(files[0], **changes)])
