"""``airflow floe``, through Airflow's own command line parser."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from airflow.cli import cli_parser
from harness.tables import data_files, rows_digest

from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef


@pytest.fixture
def airflow(floe, capsys, monkeypatch):
    """Runs an ``airflow`` command; answers with its exit code, standard output and error."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    parser = cli_parser.get_parser()

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        args = parser.parse_args(list(words))
        code = 0
        try:
            args.func(args)
        except SystemExit as exit_:
            code = exit_.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def read(out: str):
    """The JSON that ends the output."""
    return json.loads(out[min(at for at in (out.find("{\n"), out.find("[\n"), out.find("[]")) if at >= 0) :])


def test_validate_lists_problems_and_ends_with_one(floe, airflow):
    floe.write("good")
    code, out, _ = airflow("floe", "validate")
    assert code == 0
    assert "1 good, 0 problems" in out
    bad = floe.write("bad", tablePatern="*")
    code, out, _ = airflow("floe", "validate", "-o", "json", str(floe.policies))
    assert code == 1
    assert read(out)["policies"] == ["good"]
    assert f"{bad}:1" in read(out)["problems"][0]
    assert "tablePatern" in read(out)["problems"][0]


def test_validate_knows_the_engines(floe, airflow):
    floe.write("good", engine="spark", rewriteDataFiles={"engine": "local"})
    floe.write("bad", engine="sprak")
    code, out, _ = airflow("floe", "validate")
    assert code == 1
    assert "'sprak': is not an engine: use one of auto, local, spark, trino; did you mean 'spark'?" in out
    assert "1 good, 1 problem, 0 warnings" in out


def test_a_path_that_is_not_there_is_a_usage_error(floe, airflow):
    code, _, err = airflow("floe", "validate", str(floe.folder / "nowhere"))
    assert code == 2
    assert "nowhere does not exist" in err


def test_explain_names_the_governor_of_each_operation(floe, airflow):
    floe.write("broad", tablePattern="lake.*.*", rewriteDataFilesSchedule={"interval": 1})
    floe.write("narrow", tablePattern="lake.db.events", expireSnapshots=None)
    code, out, _ = airflow("floe", "explain", "lake.db.events", "-o", "json")
    assert code == 0
    rows = {row["operation"]: row for row in read(out)}
    assert rows["rewrite_data_files"]["policy"] == "narrow"
    assert rows["expire_snapshots"]["policy"] == "broad"
    assert rows["expire_snapshots"]["next slot"] == "on demand"
    assert rows["rewrite_manifests"]["policy"] is None
    code, _, err = airflow("floe", "explain", "lake.db")
    assert (code, "write catalog.namespace.table" in err) == (2, True)
    code, _, err = airflow("floe", "explain", "cold.db.events")
    assert (code, "PolicyNotFound" in err) == (1, True)


def test_plan_then_run_then_history(floe, airflow):
    floe.write("compact")
    before = rows_digest(floe.table())
    code, out, _ = airflow("floe", "plan", "lake.db.events")
    assert code == 0
    assert "rewrite_data_files: run on local" in out
    assert len(data_files(floe.table())) == 8
    assert airflow("floe", "history")[1].strip() == "no operation is on record"

    code, out, _ = airflow("floe", "run", "lake.db.events", "--operations", "rewrite_data_files")
    assert code == 0
    assert "rewrite_data_files SUCCESS: 8 data files" in out
    assert len(data_files(floe.table())) == 1
    assert rows_digest(floe.table()) == before

    code, out, _ = airflow("floe", "history", "lake.db.events", "-o", "json")
    [record] = read(out)
    assert (record["operation"], record["status"]) == ("rewrite_data_files", "SUCCESS")
    assert record["id"] in airflow("floe", "history")[1]


def test_history_settles_what_a_dead_task_left(floe, airflow, monkeypatch):
    store = floe.store()
    table = TableId.of(TableRef("lake", ("db",), "events"))
    record = OperationRecord(
        table=table,
        operation=Operation.REWRITE_DATA_FILES,
        status=OperationStatus.RUNNING,
        started_at=store.now(),
        lease_token="dead",
    )
    store.save_operation(record)
    monkeypatch.delenv("AIRFLOW__FLOE__CATALOGS")
    code, out, err = airflow("floe", "history")
    assert (code, "RUNNING" in out, "[floe] catalogs" in err) == (0, True, True)
    floe.set("AIRFLOW__FLOE__CATALOGS", "lake")
    code, out, _ = airflow("floe", "history")
    assert code == 0
    assert "INTERRUPTED" in out
    assert "its task died before it committed anything" in out


@pytest.mark.parametrize("width", ["80", "120"])
def test_what_is_printed_fits_the_terminal(floe, airflow, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    floe.write("compact")
    for words in (("explain", "lake.db.events"), ("run", "lake.db.events"), ("history",), ("policies", "list")):
        code, out, _ = airflow("floe", *words)
        lines = [line for line in out.splitlines() if "[info" not in line and "[warning" not in line]
        assert code == 0
        assert [line for line in lines if len(line) > int(width)] == []


def test_assess_reports_every_table_of_a_policy(floe, airflow):
    floe.write("compact")
    code, out, _ = airflow("floe", "assess", "--policy", "compact", "-o", "json")
    assert code == 0
    [report] = read(out)["reports"]
    assert report["metrics"]["data_file_count"] == 8
    code, out, _ = airflow("floe", "assess")
    assert "lake.db.events" in out
    assert "TOO_MANY_SMALL_FILES" in out


@pytest.mark.parametrize("command", ["plan", "run", "assess"])
def test_names_that_are_not_there_are_refused(floe, airflow, command):
    floe.write("compact")
    code, _, err = airflow("floe", command, "--policy", "compat")
    assert (code, "there is no policy 'compat'" in err) == (1, True)
    code, _, err = airflow("floe", command, "lake.db.evnts")
    assert (code, "TableNotFound" in err) == (1, True)


def test_a_failed_operation_ends_with_one(floe, airflow):
    floe.write("compact", rewriteDataFiles={"filter": "no_such_column > 1"})
    code, out, _ = airflow("floe", "run", "lake.db.events", "--force", "--operations", "rewriteDataFiles", "-o", "json")
    assert code == 1
    assert read(out)["failed"] is True


def test_quarantined_files_are_restored(floe, airflow):
    floe.write(
        "expire",
        rewriteDataFiles=None,
        expireSnapshots={"maxSnapshotAge": "PT0.001S", "retainLast": 1, "quarantine": "P1D"},
    )
    assert airflow("floe", "run", "lake.db.events")[0] == 0
    [record] = floe.store().operations()
    code, out, _ = airflow("floe", "restore", record.id, "-o", "json")
    assert code == 0
    assert read(out)[0]["files restored"] == record.result.files_quarantined > 0
    code, _, err = airflow("floe", "restore", "nothing")
    assert (code, "airflow floe history" in err) == (2, True)


def test_check_says_what_is_fine_and_what_to_fix(floe, airflow, monkeypatch):
    floe.write("compact")
    code, out, _ = airflow("floe", "check", "-o", "json")
    rows = {row["what"]: row for row in read(out)}
    assert code == 0, rows
    assert set(rows) == {"configuration", "policies", "store", "catalogs", "catalog lake", "engines", "engine local"}
    assert "rewrite_data_files" in rows["engine local"]["detail"]
    monkeypatch.setenv("AIRFLOW__FLOE__CATALOGS", "lake,cold")
    code, out, _ = airflow("floe", "check")
    assert code == 1
    assert "airflow connections add cold" in out


def test_a_connection_made_in_airflow_is_used(floe, airflow, airflow_db, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_LAKE")
    floe.write("compact")
    assert airflow("floe", "check")[0] == 1
    extra = json.dumps({"catalog_kind": "sql", "uri": f"sqlite:///{floe.folder}/catalog.db"})
    assert airflow("connections", "add", "lake", "--conn-type", "floe", "--conn-extra", extra)[0] == 0
    try:
        assert airflow("floe", "check")[0] == 0
        assert airflow("floe", "run", "lake.db.events")[0] == 0
    finally:
        airflow("connections", "delete", "lake")
    assert len(data_files(floe.table())) == 1


def test_init_writes_the_loader_files(airflow, tmp_path):
    assert airflow("floe", "init", str(tmp_path / "new"))[0] == 0
    written = sorted(str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*.*"))
    assert written == ["floe_maintenance.py", "floe_policies.py", "floe_policy_errors.py", "policies/example.yaml"]
    assert "already there" in airflow("floe", "init", str(tmp_path / "new"))[1]


def test_schema_is_json_schema_that_policies_meet(floe, airflow):
    import jsonschema

    path = floe.write("compact")
    code, out, _ = airflow("floe", "schema")
    assert code == 0
    jsonschema.validate(json.loads(path.read_text()), read(out))


def test_the_module_does_the_same_without_airflows_command_line(floe):
    floe.write("bad", tablePatern="*")
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_floe", "validate", str(floe.policies)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "tablePatern" in done.stdout


def test_loading_the_command_line_loads_no_command():
    code = (
        "import sys; import airflow_provider_floe.cli as cli; cli.get_cli_commands(); "
        "print('loaded', [name for name in ('airflow_provider_floe.cli.commands', 'pyiceberg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_help_texts_lose_no_words_to_airflows_markup():
    from airflow_provider_floe.cli import get_cli_commands

    def texts(command) -> list[str]:
        below = [text for one in getattr(command, "subcommands", ()) for text in texts(one)]
        helps = [argument.kwargs.get("help") or "" for argument in getattr(command, "args", ())]
        return [command.help, command.description, *helps, *below]

    assert [text for text in texts(get_cli_commands()[0]) if "[" in text] == []


def test_a_look_does_not_log_what_it_prints(floe, airflow, caplog):
    floe.write("events")
    caplog.set_level("INFO", logger="airflow_provider_floe.maintenance")
    assert airflow("floe", "plan", "lake.db.events")[0] == 0
    assert "rewrite_data_files" not in caplog.text
    assert airflow("floe", "run", "lake.db.events", "--dry-run")[0] == 0
    assert "rewrite_data_files" in caplog.text
