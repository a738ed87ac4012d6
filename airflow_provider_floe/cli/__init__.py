"""Command line ``airflow floe``. Airflow loads this for every command: the commands themselves load when they run."""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command


def _arg(*flags: str, **options: Any) -> Arg:
    return Arg(flags, **options)  # type: ignore[no-untyped-call]


# Airflow's help swallows words in square brackets: options are named without them.
_ARG_TABLE = _arg("table", help="catalog.namespace.table; a part with a dot stands in backquotes")
_ARG_OPTIONAL_TABLE = _arg(
    "table", nargs="?", help="catalog.namespace.table; default: every table that the policies govern"
)
_ARG_FILTER_TABLE = _arg("table", nargs="?", help="catalog.namespace.table; default: all tables")
_ARG_POLICY = _arg(
    "-p",
    "--policy",
    action="append",
    default=[],
    metavar="NAME",
    help="follow this policy; without a table it may be given several times",
)
_ARG_OPERATIONS = _arg(
    "--operations", metavar="NAMES", help="only these operations, separated by commas: rewrite_data_files,..."
)
_ARG_FORCE = _arg("--force", action="store_true", help="skip all gates, never a safety check")
_ARG_DRY_RUN = _arg("--dry-run", action="store_true", help="stop after the plan")
_ARG_POLICIES = _arg(
    "--policies",
    metavar="PATH",
    help="file or folder of policies (default: option policies_path of section floe, else policies in the DAGs folder)",
)
_ARG_OUTPUT = _arg("-o", "--output", choices=("table", "json"), default="table", help="output format")
_ARG_LIMIT = _arg("--limit", type=int, default=20, help="number of records, newest first (default: 20)")
_ARG_PATHS = _arg("paths", nargs="*", help="files or folders (default: as --policies elsewhere)")
_ARG_OPERATION_ID = _arg("operation_id", help="id of the operation record, see `history`")
_ARG_FILES = _arg("files", nargs="+", metavar="FILE", help="files or folders of policies")
_ARG_NAME = _arg("name", help="name of the policy")
_ARG_PATH = _arg("path", help="file to write")
_ARG_FOLDER = _arg("folder", nargs="?", help="folder to write to (default: the DAGs folder)")


def _command(name: str, help_text: str, *args: Arg, function: str | None = None) -> ActionCommand:
    return ActionCommand(
        name=name,
        help=help_text,
        description=help_text,
        func=lazy_load_command(f"airflow_provider_floe.cli.{function or f'commands.{name}'}"),
        args=args,
    )


_POLICIES = GroupCommand(
    name="policies",
    help="Manage policies that stand as rows in the Floe store",
    description="Used where option policies_in_store of section floe is True. Exit codes: as for the other commands.",
    subcommands=(
        _command("list", "List the store's policies", _ARG_OUTPUT, function="policies.list_policies"),
        _command(
            "put",
            "Create or replace policies by name, all or, when one is refused, none",
            _ARG_FILES,
            _ARG_OUTPUT,
            function="policies.put",
        ),
        _command("remove", "Remove a policy", _ARG_NAME, _ARG_OUTPUT, function="policies.remove"),
    ),
)

COMMANDS: tuple[ActionCommand | GroupCommand, ...] = (
    _command("validate", "Check policy files: 0 when all are good, 1 when one is refused", _ARG_PATHS, _ARG_OUTPUT),
    _command(
        "explain",
        "Say which policy governs each operation on a table, and why",
        _ARG_TABLE,
        _ARG_POLICY,
        _ARG_POLICIES,
        _ARG_OUTPUT,
    ),
    _command("assess", "Report on the health of tables", _ARG_OPTIONAL_TABLE, _ARG_POLICY, _ARG_POLICIES, _ARG_OUTPUT),
    _command(
        "plan",
        "Say what would be done and why; nothing is done",
        _ARG_OPTIONAL_TABLE,
        _ARG_POLICY,
        _ARG_OPERATIONS,
        _ARG_FORCE,
        _ARG_POLICIES,
        _ARG_OUTPUT,
    ),
    _command(
        "run",
        "Maintain a table, or all tables of policies, in this process",
        _ARG_OPTIONAL_TABLE,
        _ARG_POLICY,
        _ARG_OPERATIONS,
        _ARG_FORCE,
        _ARG_DRY_RUN,
        _ARG_POLICIES,
        _ARG_OUTPUT,
    ),
    _command("history", "List operation records, newest first", _ARG_FILTER_TABLE, _ARG_LIMIT, _ARG_OUTPUT),
    _command("restore", "Move files of an operation back from quarantine", _ARG_OPERATION_ID, _ARG_OUTPUT),
    _command("init", "Write the loader files into a DAGs folder; files that are there stay", _ARG_FOLDER),
    _command("check", "Check store, catalogs, engines and policies, and say what to fix", _ARG_POLICIES, _ARG_OUTPUT),
    _POLICIES,
    _command("spark-job-file", "Write the job that Livy is to run", _ARG_PATH, function="commands.spark_job_file"),
    _command("schema", "Print the JSON Schema of policy files, for editors"),
)


def get_cli_commands() -> list[GroupCommand]:
    """What Airflow adds to its command line."""
    return [
        GroupCommand(
            name="floe",
            help="Maintain Apache Iceberg tables by policy",
            description="Exit codes: 0 good, 1 something failed or was refused, 2 wrong usage or configuration.",
            subcommands=COMMANDS,
        )
    ]
