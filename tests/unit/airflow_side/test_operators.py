from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_floe.errors import (
    CatalogUnavailable,
    ConfigurationError,
    InvalidPolicy,
    OperationCancelled,
    UnsafeOperation,
)
from airflow_provider_floe.links import FloeRecordLink
from airflow_provider_floe.operators.arguments import as_bool, as_namespace, as_operations, as_text
from airflow_provider_floe.operators.base import airflow_errors, retry_can_help, run_mode
from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.tables import Operation


@pytest.mark.parametrize(
    ("run_type", "mode"),
    [
        ("scheduled", RunMode.SCHEDULED),
        ("backfill", RunMode.SCHEDULED),
        ("manual", RunMode.OPERATOR),
        ("asset_triggered", RunMode.ASSET),
    ],
)
def test_only_what_airflow_schedules_looks_at_schedules(run_type, mode):
    assert run_mode({"dag_run": SimpleNamespace(run_type=run_type)}) is mode


def test_errors_that_a_retry_cannot_help_fail_without_retry():
    with pytest.raises(AirflowFailException, match="UnsafeOperation: the listing is partial"), airflow_errors():
        raise UnsafeOperation("the listing is partial")


@pytest.mark.parametrize("error", [CatalogUnavailable("no answer"), OperationCancelled("stopped"), OSError("disk")])
def test_other_errors_are_left_to_airflows_retries(error):
    with pytest.raises(type(error)), airflow_errors():
        raise error


@pytest.mark.parametrize(
    ("kinds", "helps"),
    [
        (["UnsafeLocation"], False),
        (["CommitConflict"], True),
        (["UnsafeLocation", "OSError"], True),
        (["Skipped", "VerificationFailed"], True),
        ([], False),
    ],
)
def test_a_failed_table_is_retried_when_that_may_help(kinds, helps):
    assert retry_can_help([SimpleNamespace(error_type=kind) for kind in kinds]) is helps


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        ("None", None),
        ("[]", None),
        ([], None),
        ('["expire_snapshots", "rewriteDataFiles"]', (Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS)),
        ("orphanCleanup, rewrite_manifests", (Operation.REWRITE_MANIFESTS, Operation.REMOVE_ORPHAN_FILES)),
        ([Operation.EXPIRE_SNAPSHOTS], (Operation.EXPIRE_SNAPSHOTS,)),
    ],
)
def test_operations_are_read_in_run_order(given, found):
    assert as_operations(given) == found


@pytest.mark.parametrize(
    ("given", "found"), [("a.b", "a.b"), ('"a.b"', "a.b"), ('["a", "b.c"]', ["a", "b.c"]), (["a"], ["a"])]
)
def test_namespaces_are_read_from_text_lists_and_json(given, found):
    assert as_namespace(given) == found


def test_arguments_that_make_no_sense_are_named():
    for read, told in (
        (lambda: as_bool("perhaps", "force"), "force = 'perhaps'"),
        (lambda: as_namespace("[1, 2]"), "namespace"),
        (lambda: as_namespace('["a"'), "not valid JSON"),
        (lambda: as_operations("vacuum"), "unknown operation 'vacuum'"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            read()
        assert told in str(refused.value)
    assert (as_bool("True", "force"), as_bool("", "force"), as_text("None"), as_text(" p ")) == (True, False, None, "p")


def test_a_wrong_policy_in_code_fails_when_the_operator_is_made():
    with pytest.raises(InvalidPolicy, match=r"'p' in the DAG.*stratgy"):
        FloeMaintenanceOperator(
            task_id="t",
            table="lake.db.t",
            policy={"name": "p", "tablePattern": "*", "rewriteDataFiles": {"stratgy": "SORT"}},
        )


@pytest.mark.parametrize(
    ("index", "path"), [(-1, "/tasks/floe.execute/xcom"), (None, "/tasks/floe.execute/xcom"), (0, "/mapped/0/xcom")]
)
def test_the_link_leads_to_the_tasks_xcom_page(monkeypatch, index, path):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team/")
    key = SimpleNamespace(
        dag_id="floe_policy_web", run_id="manual__2026-01-01T00:00:00+00:00", task_id="floe.execute", map_index=index
    )
    link = FloeRecordLink().get_link(None, ti_key=key)
    assert link.startswith(
        "https://airflow.example/team/dags/floe_policy_web/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/"
    )
    assert link.endswith(path)
