"""What the job says to Spark, when it ends itself, and how its errors reach people; no Spark runs here."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.engines.capabilities import OperationCapability, refused_settings
from airflow_provider_floe.engines.spark import job
from airflow_provider_floe.engines.spark.capabilities import WANTED, spark_capabilities
from airflow_provider_floe.engines.spark.outcome import translated
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    ConfigurationError,
    EngineFailed,
    EngineUnavailable,
    FloeError,
    UnsupportedSetting,
)
from airflow_provider_floe.policies.model import SETTINGS_MODELS, RewriteDataFiles
from airflow_provider_floe.tables import Operation, split_dotted


@given(st.lists(st.text(min_size=1), min_size=1))
def test_names_survive_quoting(parts: list[str]) -> None:
    assert list(split_dotted(job.identifier(parts))) == parts


@given(st.text())
def test_no_text_ends_its_literal(text: str) -> None:
    inside = iter(job.literal(text)[1:-1])
    read = ""
    for character in inside:
        assert character != "'", "the literal would end here"
        read += next(inside) if character == "\\" else character
    assert read == text


def test_a_call_names_its_arguments() -> None:
    arguments = {"table": "`a`.`b`", "ids": [1, 2**40], "options": {"x": "it's"}, "when": {"timestamp": "2026Z"}}
    assert job.call_statement("la`ke", "do", {**arguments, "flag": True, "n": 3}) == (
        "CALL `la``ke`.system.do(table => '`a`.`b`', ids => array(1L, 1099511627776L), options => map('x', 'it\\'s'), "
        "when => TIMESTAMP '2026Z', flag => true, n => 3)"
    )


class Ended(Exception):
    """Instead of ending this process."""


class Storage:
    """FileIO as the job sees it, with one file."""

    def __init__(self, texts: list[str | None]) -> None:
        self.texts = iter(texts)

    def newInputFile(self, path: str) -> Storage:
        return self

    def newStream(self) -> Any:
        text = next(self.texts)
        if text is None:
            raise OSError("storage does not answer")
        return type("Stream", (), {"readAllBytes": lambda _: text.encode(), "close": lambda _: None})()


@pytest.mark.parametrize(
    ("texts", "checks"),
    [
        ([job.STOP], 1),
        (["1", "2", job.STOP], 3),
        (["1", "1", "1", "1"], 4),  # 30 s after the first
        (["1", "2", "2", "2", "2"], 5),
        (["1", None, None, None], 4),  # storage that cannot be read says nothing
    ],
)
def test_a_job_ends_when_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, texts: list[str | None], checks: int
) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    clock = itertools.count(0, 10)
    monkeypatch.setattr(job.os, "_exit", end)
    monkeypatch.setattr(job.time, "monotonic", lambda: now)
    now = next(clock)
    leash = job._Leash(Storage(texts), "leash", 25)
    for _ in range(checks - 1):
        leash.check()
        now = next(clock)
    with pytest.raises(Ended, match=str(job.LEASH_LOST)):
        leash.check()


def test_a_job_begins_only_when_it_sees_that_someone_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    passed: list[float] = []
    monkeypatch.setattr(job.os, "_exit", end)
    monkeypatch.setattr(job.time, "sleep", passed.append)
    monkeypatch.setattr(job.time, "monotonic", lambda: sum(passed))
    job._Leash(Storage(["7", "7", None, "8"]), "leash", 25).expect_renewal()
    left_behind = job._Leash(Storage(["7"] * 1000), "leash", 25)
    with pytest.raises(Ended, match=str(job.LEASH_LOST)):
        left_behind.expect_renewal()


class Gone(Exception):
    """Iceberg's for a file that is not there, as py4j hands it on."""

    java_exception = type(
        "NotFound",
        (),
        {
            "getClass": lambda self: type("C", (), {"getName": lambda _: "org.apache.iceberg.NotFoundException"})(),
            "getMessage": lambda self: "no such file",
        },
    )()


def test_a_job_that_needs_no_renewal_ends_when_its_request_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    class Withdrawn(Storage):
        def newInputFile(self, path: str) -> Storage:
            raise Gone

    monkeypatch.setattr(job.os, "_exit", end)
    monkeypatch.setattr(job.time, "monotonic", itertools.count(0, 10_000).__next__)
    leash = job._Leash(Storage(["go on"] * 3 + [None]), "leash", None)
    leash.expect_renewal()
    for _ in range(3):
        leash.check()
    leash._io = Withdrawn([])
    with pytest.raises(Ended, match=str(job.LEASH_LOST)):
        leash.check()


def test_a_job_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(job.os, "_exit", end)
    monkeypatch.setattr(job.time, "time", itertools.count(1000, 10).__next__)
    leash = job._Leash(Storage(["go on"] * 9), "leash", None, 1015)
    leash.check()
    leash.check()
    with pytest.raises(Ended, match=str(job.LEASH_LOST)):
        leash.check()


@pytest.mark.parametrize(
    ("type_", "message", "expected"),
    [
        ("org.apache.iceberg.exceptions.CommitStateUnknownException", "maybe", CommitOutcomeUnknown),
        ("org.apache.iceberg.exceptions.CommitFailedException", "Requirement failed", CommitConflict),
        ("org.apache.iceberg.exceptions.ValidationException", "Found new position delete", CommitConflict),
        ("java.lang.IllegalArgumentException", "Cannot use options [x], they are not supported", UnsupportedSetting),
        ("org.apache.iceberg.exceptions.NotAuthorizedException", "401", ConfigurationError),
        ("java.net.ConnectException", "Connection refused", EngineUnavailable),
        ("ParseException", "[PARSE_SYNTAX_ERROR] near 'x'", ConfigurationError),
        ("java.lang.OutOfMemoryError", "Java heap space", EngineFailed),
    ],
)
def test_errors_are_told_apart(type_: str, message: str, expected: type[FloeError]) -> None:
    error = translated({"type": type_, "message": message + "\n\tat x.y.Z(Z.java:1)"}, "spark_prod")
    assert type(error) is expected
    assert "'spark_prod'" in str(error)
    assert message in str(error)
    assert "Z.java" not in str(error)


@pytest.mark.parametrize("java", [True, False])
def test_no_setting_is_left_out_and_what_is_not_there_is_refused(java: bool) -> None:
    """Of an old runtime."""
    arguments = {name: list(found) for name, found in WANTED.items()}
    arguments["expire_snapshots"].remove("clean_expired_metadata")
    arguments["remove_orphan_files"].remove("file_list_view")
    found = {
        "version": "3.5.0",
        "catalogs": {"lake": ""},
        "arguments": arguments,
        "missing": {},
        "options": ["target-file-size-bytes"],
        "actions": ["rewriteIf", "stagingLocation"],
    }
    capabilities = spark_capabilities(found, java=java, route="spark-submit", connection="c", catalogs={"prod": "lake"})
    for operation, capability in capabilities.operations.items():
        if operation is Operation.REMOVE_ORPHAN_FILES:
            assert not capability.supported
            assert "file_list_view" in capability.reason
            continue
        wires = {field.alias or name for name, field in SETTINGS_MODELS[operation].model_fields.items()}
        assert capability.honoured | capability.refused.keys() == wires
    assert "cleanExpiredMetadata" in capabilities.operations[Operation.EXPIRE_SNAPSHOTS].refused
    assert "sortBy" in capabilities.operations[Operation.REWRITE_MANIFESTS].refused
    rewrite = capabilities.operations[Operation.REWRITE_DATA_FILES]
    assert ("outputSpecId" in rewrite.refused) is java
    by_curve = RewriteDataFiles(strategy="ZORDER", z_order_columns=["a"])
    assert bool(refused_settings(OperationCapability(refused=rewrite.refused), by_curve)) is not java
