"""What the commands of ``airflow floe`` do. Each ends the process with its exit code."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_floe import config
from airflow_provider_floe.cli.output import print_entry, print_json, print_rows, print_text
from airflow_provider_floe.cli.process import FAILED, GOOD, command, dags_folder, policies_path
from airflow_provider_floe.errors import ConfigurationError, FloeError
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import EngineName, Policy
from airflow_provider_floe.policy_rows import read_rows
from airflow_provider_floe.policy_source import PolicySource, load_path
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import TableRef
from airflow_provider_floe.text import count_text


@command
def validate(args: argparse.Namespace) -> int:
    """Check policy files; without paths, those of the deployment and the Floe store's rows."""
    from airflow_provider_floe.engines.registry import load_engine_factories
    from airflow_provider_floe.policies.resolution import shadow_warnings

    engines = {*(name.value for name in EngineName), *load_engine_factories()}
    if args.paths:
        sets = [load_path(policies_path(path), engines=engines) for path in args.paths]
    else:
        sets = [load_path(policies_path(None), read_rows(), engines=engines)]
    policies = [policy for found in sets for policy in found.all]
    problems = [problem for found in sets for problem in found.problems]
    warnings = [str(warning) for found in sets for warning in found.warnings] + list(shadow_warnings(policies))
    if args.output == "json":
        print_json(
            {
                "policies": [policy.name for policy in policies],
                "problems": [str(problem) for problem in problems],
                "warnings": warnings,
            }
        )
    else:
        for problem in problems:
            print(f"refused: {problem}")
        for warning in warnings:
            print(f"warning: {warning}")
        refused = len({(problem.file, problem.policy, problem.line) for problem in problems})
        print(f"{len(policies)} good, {count_text(refused, 'problem')}, {count_text(len(warnings), 'warning')}")
    return FAILED if problems else GOOD


@command
def explain(args: argparse.Namespace) -> int:
    """Say which policy governs each operation on a table."""
    from airflow_provider_floe.policies.resolution import governing
    from airflow_provider_floe.policies.schedules import SlotSchedule, is_scheduled

    table = TableRef.parse(args.table)
    now = datetime.now(UTC)
    rows = []
    for operation, governance in governing(_policies(args), table, _one(args.policy)).items():
        policy, when = governance.policy, None
        schedule = policy.schedule(operation) if policy else None
        if policy is not None and schedule is not None and is_scheduled(policy, operation):
            when = SlotSchedule.of(schedule, config.default_timezone()).next_slot(now).isoformat(" ", "minutes")
        rows.append(
            {
                "operation": operation.value,
                "policy": policy.name if policy else None,
                "next slot": when or ("on demand" if policy else None),
                "why": governance.explanation,
            }
        )
    print_rows(rows, args.output, empty="no operation is governed")
    return GOOD


@command
def assess(args: argparse.Namespace) -> int:
    """Report on the health of tables."""
    from airflow_provider_floe.maintenance.assess import assess as assess_tables

    with _environment(args) as env:
        assessment = assess_tables(_quiet(env), _request(args))
    if args.output == "json":
        print_json(assessment.model_dump(mode="json", exclude={"context"}))
    else:
        rows = [
            {
                "table": str(report.table.ref()),
                "data files": report.metrics.data_file_count,
                "delete files": report.metrics.delete_file_count,
                "snapshots": report.metrics.snapshot_count,
                "manifests": report.metrics.manifest_count,
                "issues": [f"{issue.type} ({issue.severity})" for issue in report.issues],
            }
            for report in assessment.reports
        ]
        print_rows(rows, "table", empty="no table is governed by these policies")
        for failure in assessment.failures:
            print(f"not assessed: {failure.subject}: {failure.message}")
    return FAILED if assessment.failures else GOOD


@command
def plan(args: argparse.Namespace) -> int:
    """Say what would be done; nothing is done."""
    from airflow_provider_floe.maintenance.assess import assess as assess_tables
    from airflow_provider_floe.maintenance.plan import plan as plan_tables
    from airflow_provider_floe.planning.explain import explain_plan

    with _environment(args) as env:
        env = _quiet(env)
        made = plan_tables(env, assess_tables(env, _request(args, dry_run=True)).id)
    if args.output == "json":
        print_json(made.model_dump(mode="json"))
    else:
        print("\n".join(explain_plan(made)))
    return FAILED if made.failures else GOOD


@command
def run(args: argparse.Namespace) -> int:
    """Maintain a table, or all tables of policies, in this process."""
    from airflow_provider_floe.maintenance.run import run as run_maintenance

    with _environment(args) as env:
        result = run_maintenance(env, _request(args, dry_run=args.dry_run))
    if args.output == "json":
        print_json(
            {
                "plan_id": result.plan.id,
                "failed": result.verdict.failed,
                "failures": result.verdict.failures,
                "summary": result.verdict.summary,
                "records": [record.model_dump(mode="json") for record in result.records],
            }
        )
    else:
        for line in result.verdict.summary:
            print_text(line)
        for line in result.verdict.failures:
            print_text(f"failed: {line}")
    return FAILED if result.verdict.failed else GOOD


@command
def history(args: argparse.Namespace) -> int:
    """List operation records, after what dead tasks left is settled."""
    from airflow_provider_floe.airflow_environment import open_floe_store

    store = open_floe_store()
    try:
        table = TableRef.parse(args.table) if args.table else None
        unsettled = [status for status in OperationStatus if not status.settled]
        if store.operations(table=table, statuses=unsettled, limit=1):
            _settle()
        records = store.operations(table=table, limit=args.limit)
    finally:
        store.close()
    if args.output == "json":
        print_json([record.model_dump(mode="json") for record in records])
        return GOOD
    for record in records:
        print_entry(
            f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC  {record.status}  {record.operation} on {record.table.ref()}",
            [
                f"id {record.id}" + (f", engine {record.engine}" if record.engine else ""),
                record.error or (record.result.message if record.result else record.reason),
            ],
        )
    if not records:
        print("no operation is on record")
    return GOOD


def _settle() -> None:
    from airflow_provider_floe.airflow_environment import open_environment
    from airflow_provider_floe.maintenance.settle import settle_all

    try:
        with open_environment(()) as (env, _):
            settle_all(env)
    except FloeError as error:
        print(f"what dead tasks left could not be settled: {error}", file=sys.stderr)


@command
def restore(args: argparse.Namespace) -> int:
    """Move files of an operation back from quarantine."""
    from airflow_provider_floe.maintenance.restore import restore as restore_files

    with _environment(args, policies=()) as env:
        count = restore_files(env, args.operation_id)
    print_rows([{"operation": args.operation_id, "files restored": count}], args.output, empty="")
    return GOOD


@command
def init(args: argparse.Namespace) -> int:
    """Write the loader files into a DAGs folder."""
    from airflow_provider_floe.loader_files import write_loader_files

    folder = Path(args.folder) if args.folder else dags_folder()
    for path, written in write_loader_files(folder).items():
        print(f"{'written' if written else 'already there'}: {path}")
    print(f"Next: list catalog connections in [floe] catalogs, and put policies into {folder / 'policies'}")
    return GOOD


@command
def check(args: argparse.Namespace) -> int:
    """Check store, catalogs, engines and policies."""
    from airflow_provider_floe.cli.checks import run_checks

    rows = run_checks(policies_path(args.policies))
    print_rows(rows, args.output, empty="")
    return GOOD if all(row["ok"] == "yes" for row in rows) else FAILED


@command
def schema(args: argparse.Namespace) -> int:
    """Print the JSON Schema of policy files."""
    from airflow_provider_floe.policies.json_schema import policy_json_schema

    print_json(policy_json_schema())
    return GOOD


@command
def spark_job_file(args: argparse.Namespace) -> int:
    """Write the job that Spark runs, for routes that need it where their server can read it."""
    import shutil

    from airflow_provider_floe.engines.spark import job

    path = Path(args.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(job.__file__, path)
    print(f"written: {path} (version {job.version()})")
    print("Next: copy it to where Livy and Spark can read it, and name that place in floe_livy_job_file (connection)")
    return GOOD


@contextmanager
def _environment(args: argparse.Namespace, policies: tuple[Policy, ...] | None = None) -> Iterator[Environment]:
    from airflow_provider_floe.airflow_environment import open_environment

    with open_environment(_policies(args) if policies is None else policies) as (env, _):
        yield env


def _quiet(env: Environment) -> Environment:
    """For commands that only look: they print what the events say, and a look is nothing to count."""
    return replace(env, emit=lambda event: None)


def _request(args: argparse.Namespace, *, dry_run: bool = False) -> RunRequest:
    from airflow_provider_floe.health.report import TableId, new_id
    from airflow_provider_floe.operators.arguments import as_operations
    from airflow_provider_floe.operators.assess import check_named

    names = tuple(args.policy)
    if args.table:
        _one(args.policy)
    else:
        check_named(_policies(args), names)
    return RunRequest(
        run_id=f"cli__{datetime.now(UTC).isoformat(timespec='seconds')}__{new_id()[:8]}",
        mode=RunMode.TABLE_CONF if args.table else RunMode.OPERATOR,
        policies=names,
        table=TableId.of(TableRef.parse(args.table)) if args.table else None,
        operations=as_operations(getattr(args, "operations", None)),
        force=getattr(args, "force", False),
        dry_run=dry_run,
        context={"command": "airflow floe", "host": socket.gethostname(), "pid": os.getpid()},
    )


def _one(names: list[str]) -> str | None:
    if len(names) > 1:
        raise ConfigurationError(f"a table run follows one policy, but {len(names)} are named: {', '.join(names)}")
    return names[0] if names else None


def _policies(args: argparse.Namespace) -> tuple[Policy, ...]:
    return PolicySource(path=policies_path(args.policies)).load()
