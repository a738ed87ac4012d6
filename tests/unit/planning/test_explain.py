"""The plan in words: nothing is left out, and every line fits."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from plan_builders import NOW, inputs, issue, policy, report, request, requests, work

from airflow_provider_floe.health.report import AssessmentFailure, FailureKind, IssueType, Severity, TableMetrics
from airflow_provider_floe.planning.explain import explain_item, explain_plan, plan_table_rows
from airflow_provider_floe.planning.model import Budgets, PlanRequest
from airflow_provider_floe.planning.planner import plan
from airflow_provider_floe.policies.resolution import Governance
from airflow_provider_floe.tables import RUN_ORDER, Operation

REWRITE, _, MANIFESTS, _, EXPIRE, ORPHANS = RUN_ORDER


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@settings(max_examples=30)
@given(requests())
def test_every_decision_stands_in_every_view_with_its_reasons(asked: PlanRequest) -> None:
    made = plan(asked)
    lines = explain_plan(made)
    rows = plan_table_rows(made)
    assert max(map(len, lines)) <= 120
    assert all(line == line.rstrip() for line in lines)
    assert {(row["table"], row["operation"]) for row in rows} == {
        (str(item.table.ref()), item.operation.value) for item in made.items
    }
    whole = words(lines)
    for item in made.items:
        own = explain_item(item)
        assert max(map(len, own)) <= 120
        for reason in item.reasons:
            reason = reason.removeprefix(f"{item.disposition}: ")  # stands in the line before
            assert words([reason]) in words(own)
            assert words([reason]) in whole
        for gate in item.gates:
            assert words([gate.reason]) in words(own)
        for term in item.score_terms:
            assert (words([f"{term.name}: {term.reason}"]) in words(own)) == bool(term.points)


def test_a_plan_reads_from_totals_to_single_decisions() -> None:
    sick = report(
        "events",
        issues=(issue(IssueType.TOO_MANY_SMALL_FILES, Severity.CRITICAL),),
        works=(
            work(REWRITE, files_in=40, files_out=3, bytes_in=1024**3, bytes_out=1024**3, summary="40 small files"),
            work(Operation.REMOVE_ORPHAN_FILES, False, summary="0 of 9 files are orphans"),
        ),
        metrics=TableMetrics(newest_snapshot_at=NOW, small_file_percentage=80.0),
    )
    governor = policy(
        triggerConditions={"smallFilePercentageAbove": 50}, rewriteManifests=None, expireSnapshots={"enabled": False}
    )
    broken = AssessmentFailure(catalog="lake", kind=FailureKind.CATALOG, message="connection refused")
    made = plan(
        request(
            inputs(sick, governor=governor),
            failures=(broken,),
            budgets=Budgets(max_bytes_per_hour=2 * 1024**3),
            dry_run=True,
        )
    )
    assert explain_plan(made) == [
        f"Plan {made.id} of scheduled run run-1, 2026-03-10 02:30 UTC, dry run: 1 table, 6 decisions",
        "  run 1, not governed 3, switched off 1, no work 1",
        "  budget max_bytes_per_hour: this plan takes 1 GiB of 2 GiB",
        "  1 batch to execute",
        "  catalog lake: not assessed, catalog unavailable: connection refused",
        "lake.db.events: score 100, rank 1 (+100.0 issue TOO_MANY_SMALL_FILES)",
        "  + rewrite_data_files: run on local",
        "      why      work found: 40 small files",
        "               issue TOO_MANY_SMALL_FILES CRITICAL: TOO_MANY_SMALL_FILES is 12, threshold 10",
        "               condition met: smallFilePercentageAbove: 80 %, threshold 50 %",
        "      estimate 40 files, 1 GiB -> 3 files, 1 GiB",
        "      engine   local: auto: 1 GiB to read; up to 50 GiB the local engine is the cheapest",
        "      gates    schedule passed: due: slot 2026-03-10 02:00 UTC, last consumed 2026-03-09 02:00 UTC",
        "               window passed: 2026-03-10 02:30 UTC is inside the allowed times",
        "               critical deadline: not forced: not a critical pipeline",
        "               minimum interval passed: no minimum interval is set",
        "               conditions passed: 1 of 1 condition met, any needed (OR); "
        "met smallFilePercentageAbove: 80 %, threshold",
        "               50 %",
        "               backoff passed: 0 failures in a row, backoff from 3",
        "               throttle passed: 0 runs without change in a row, throttle from 5",
        "  - rewrite_position_delete_files: not governed",
        "      why not  no policy that matches has settings for it",
        "  - rewrite_manifests: not governed",
        "      why not  no policy that matches has settings for it",
        "  - compute_table_stats: not governed",
        "      why not  no policy that matches has settings for it",
        "  - expire_snapshots: switched off",
        "      why not  policy events has expireSnapshots.enabled=false",
        "  - remove_orphan_files: no work",
        "      why not  0 of 9 files are orphans",
    ]


def test_what_is_not_governed_is_said_once() -> None:
    nobody = dict.fromkeys(Operation, Governance(None, "not governed: no enabled policy matches lake.db.events"))
    lines = explain_plan(plan(request(replace(inputs(report("events")), governance=nobody))))
    assert lines[-2:] == [
        "  - remove_orphan_files: not governed",
        "      why not  no enabled policy matches lake.db.events",
    ]


def test_rows_stand_by_rank_with_tables_that_nothing_runs_on_last() -> None:
    some = inputs(report("b", works=(work(REWRITE, files_in=2, files_out=1, bytes_in=10, bytes_out=10),)))
    none = inputs(report("a", works=tuple(work(operation, False) for operation in RUN_ORDER)))
    rows = plan_table_rows(plan(request(none, some)))
    assert [row["table"] for row in rows] == ["lake.db.b"] * 6 + ["lake.db.a"] * 6
    assert rows[0] == {
        "table": "lake.db.b",
        "operation": "rewrite_data_files",
        "decision": "run",
        "why": "work found: there is some",
        "score": "0",
        "rank": "1",
        "estimate": "2 files, 10 B -> 1 file, 10 B",
    }
    assert rows[6]["why"] == "nothing to merge"
