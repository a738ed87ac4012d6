"""Policies that stand as rows in the Floe store."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from airflow.cli import cli_parser
from dag_runs import states
from harness.tables import data_files
from sqlalchemy import create_engine, update

from airflow_provider_floe.dag_factory import FloePolicyDag, load_policy_dags, raise_policy_errors
from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy, StoreUnavailable
from airflow_provider_floe.loader_files import DAG_FILES, write_loader_files
from airflow_provider_floe.policies.loading import parse_policy
from airflow_provider_floe.policy_source import PolicySource, as_policy
from airflow_provider_floe.stores.sql import schema
from airflow_provider_floe.stores.sql.store import SqlStore


def document(name: str, **fields):
    return {"name": name, "tablePattern": "lake.db.*", "rewriteDataFiles": {}, **fields}


@pytest.fixture
def rows(floe, monkeypatch, tmp_path):
    """Puts policies into the store of a deployment that uses them."""
    floe.set("AIRFLOW__FLOE__POLICIES_IN_STORE", "True")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def put(*names: str, **fields) -> None:
        store = floe.store()
        for name in names:
            store.put_policy(parse_policy(document(name, **fields)))
        store.close()

    return put


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the store about policies."""
    calls: list[str] = []
    for name in ("policy_revision", "policy_documents", "policies"):
        original = getattr(SqlStore, name)
        monkeypatch.setattr(
            SqlStore, name, lambda self, name=name, original=original: calls.append(name) or original(self)
        )
    return calls


def parse(floe) -> set[str]:
    """Names of the policies that become DAGs."""
    namespace: dict[str, object] = {"__file__": str(floe.policies.parent / "floe_policies.py")}
    load_policy_dags(namespace)
    return {name.removeprefix("floe_policy_") for name in namespace if name.startswith("floe_policy_")}


def damage(floe, name: str, text: str) -> None:
    """Change a row behind the code's back, as an older or newer version would have written it."""
    engine = create_engine(floe.store_url)
    with engine.begin() as connection:
        connection.execute(update(schema.policies).where(schema.policies.c.name == name).values(document=text))
        connection.execute(update(schema.counters).values(value=schema.counters.c.value + 1))
    engine.dispose()


def break_store(floe) -> None:
    database = floe.folder / "floe.db"
    database.rename(floe.folder / "gone.db")
    for suffix in ("-wal", "-shm"):
        (floe.folder / f"floe.db{suffix}").unlink(missing_ok=True)
    database.mkdir()


def test_without_the_option_rows_are_no_policies_and_nothing_is_asked(floe, rows, asked):
    rows("stored")
    floe.set("AIRFLOW__FLOE__POLICIES_IN_STORE", "False")
    floe.write("filed")
    assert parse(floe) == {"filed"}
    assert [policy.name for policy in PolicySource(path=floe.policies).load()] == ["filed"]
    assert asked == []


def test_a_policy_that_stands_only_in_the_store_runs(floe, rows, run_dag):
    rows("stored")
    run = run_dag(FloePolicyDag("stored"))
    assert run.state == "success"
    assert states(run)["execute"] == ["success"]
    assert len(data_files(floe.table())) == 1
    assert {record.policy for record in floe.store().operations()} == {"stored"}


def test_files_and_rows_are_one_set_also_where_no_folder_of_files_is(floe, rows, monkeypatch):
    rows("stored")
    floe.write("filed")
    assert parse(floe) == {"filed", "stored"}
    monkeypatch.delenv("AIRFLOW__FLOE__POLICIES_PATH")
    (floe.policies / "filed.json").unlink()
    floe.policies.rmdir()
    assert parse(floe) == {"stored"}
    raise_policy_errors()
    floe.set("AIRFLOW__FLOE__POLICIES_PATH", str(floe.folder / "mistyped"))
    with pytest.raises(ConfigurationError, match="mistyped does not exist"):
        raise_policy_errors()


def test_one_name_in_a_file_and_in_a_row_is_refused_in_both(floe, rows):
    rows("twice", "good")
    file = floe.write("twice")
    assert parse(floe) == {"good"}
    with pytest.raises(InvalidPolicy) as refused:
        raise_policy_errors()
    assert f"{file}:1: policy 'twice'" in str(refused.value)
    assert "another policy has this name, in Floe store, row 'twice'; both are refused" in str(refused.value)
    with pytest.raises(ConfigurationError, match="'good' stands both in the DAG and in Floe store, row 'good'"):
        PolicySource(path=floe.policies, inline=(as_policy(document("good")),)).load()


def test_parsing_asks_one_query_while_nothing_changed(floe, rows, asked):
    rows("first")
    assert parse(floe) == {"first"}
    assert asked == ["policy_revision", "policy_documents"]
    asked.clear()
    assert parse(floe) == {"first"}
    assert asked == ["policy_revision"]
    rows("second")
    asked.clear()
    assert parse(floe) == {"first", "second"}
    assert asked == ["policy_revision", "policy_documents"]


def test_the_cache_does_not_name_the_store_and_serves_no_other_one(floe, rows, tmp_path):
    rows("first")
    assert parse(floe) == {"first"}
    [cache] = (tmp_path / "home").glob("floe_policies_*.json")
    assert str(floe.folder) not in cache.read_text()
    floe.set("AIRFLOW__FLOE__STORE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    assert parse(floe) == set()
    cache.write_text("{ torn")
    floe.set("AIRFLOW__FLOE__STORE_URL", floe.store_url)
    assert parse(floe) == {"first"}


def test_with_the_store_down_the_last_policies_stay_and_the_failure_is_shown(floe, rows):
    rows("stored")
    floe.write("filed")
    assert parse(floe) == {"filed", "stored"}
    break_store(floe)
    assert parse(floe) == {"filed", "stored"}
    with pytest.raises(InvalidPolicy, match="could not be read, the 1 policies read last are used: "):
        raise_policy_errors()
    with pytest.raises((StoreUnavailable, ConfigurationError)):
        PolicySource(path=floe.policies).load()


def test_with_the_store_down_from_the_start_the_files_policies_stay(floe, rows):
    floe.write("filed")
    floe.set("AIRFLOW__FLOE__STORE_URL", f"sqlite:///{floe.policies / 'filed.json'}/floe.db")
    assert parse(floe) == {"filed"}
    with pytest.raises(InvalidPolicy, match="could not be read, none was read before"):
        raise_policy_errors()


def test_a_row_that_is_no_longer_valid_is_a_problem_and_the_others_stay(floe, rows):
    rows("good", "old")
    damage(floe, "old", json.dumps(document("old", rewriteDataFiles={"stratgy": "SORT"})))
    assert parse(floe) == {"good"}
    with pytest.raises(InvalidPolicy) as refused:
        raise_policy_errors()
    assert "1 Floe policy could not be loaded; 1 could" in str(refused.value)
    assert "Floe store, row 'old': policy 'old': rewriteDataFiles.stratgy" in str(refused.value)
    damage(floe, "old", "{ torn")
    with pytest.raises(InvalidPolicy, match="row 'old': policy 'old': document: not JSON"):
        raise_policy_errors()


def test_inside_a_task_only_its_own_dag_is_built(floe, rows, monkeypatch):
    from airflow_provider_floe.policies import loading

    rows(*(f"p{number}" for number in range(5)))
    parsed = []
    read_json = loading.read_json
    monkeypatch.setattr(loading, "read_json", lambda text: parsed.append(text) or read_json(text))
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "floe_policy_p3")
    assert parse(floe) == {"p3"}
    assert len(parsed) == 1


def test_parsing_stays_stable_and_loads_no_data_library(floe, rows):
    rows("stored", tags={"team": "web", "tier": "gold"}, rewriteDataFilesSchedule={"interval": "PT6H"})
    write_loader_files(floe.policies.parent)
    code = (
        "import runpy, sys\n"
        "from airflow.models.serialized_dag import SerializedDagModel\n"
        "from airflow.serialization.serialized_objects import DagSerialization\n"
        "found = [runpy.run_path(name) for name in sys.argv[1:]]\n"
        "dag = found[0]['floe_policy_stored']\n"
        "heavy = [name for name in ('pyiceberg', 'pyarrow', 'duckdb', 'obstore') if name in sys.modules]\n"
        "print('loaded', heavy, SerializedDagModel.hash(DagSerialization.to_dict(dag)))"
    )
    files = [str(floe.policies.parent / name) for name in DAG_FILES]
    answers = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
        answers.append(done.stdout.splitlines()[-1])
    assert answers[0].startswith("loaded [] ")
    assert answers[0] == answers[1]


@pytest.fixture
def policies(floe, rows, capsys, monkeypatch):
    """Runs ``airflow floe policies``; answers with its exit code, standard output and error."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    parser = cli_parser.get_parser()

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        args = parser.parse_args(["floe", "policies", *words])
        with pytest.raises(SystemExit) as ended:
            args.func(args)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_policies_are_put_listed_and_removed(floe, policies, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([document("a"), document("b", enabled=False)]))
    assert policies("list")[1].strip() == "no policy stands in the Floe store"
    code, out, _ = policies("put", str(file), "-o", "json")
    assert (code, [row["change"] for row in json.loads(out)]) == (0, ["created", "created"])
    file.write_text(json.dumps([document("a"), document("b")]))
    code, out, _ = policies("put", str(file), "-o", "json")
    assert (code, [row["change"] for row in json.loads(out)]) == (0, ["unchanged", "replaced"])
    code, out, _ = policies("list", "-o", "json")
    assert [policy["name"] for policy in json.loads(out)["policies"]] == ["a", "b"]
    assert policies("remove", "b")[0] == 0
    code, out, _ = policies("list")
    assert code == 0
    assert "lake.db.*" in out
    assert "b  " not in out
    code, _, err = policies("remove", "b")
    assert (code, "no policy 'b' stands in the Floe store: there are a" in err) == (1, True)


def test_nothing_is_written_when_one_is_refused_or_stands_in_a_file(floe, policies, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([document("a"), document("b", rewriteDataFiles={"stratgy": "SORT"})]))
    code, _, err = policies("put", str(file))
    assert (code, "stratgy" in err, "nothing was written" in err) == (1, True, True)
    file.write_text(json.dumps([document("a")]))
    floe.write("a")
    code, _, err = policies("put", str(file))
    assert (code, "'a' stands in" in err) == (1, True)
    code, _, err = policies("put", str(tmp_path / "nowhere.json"))
    assert (code, "nowhere.json does not exist" in err) == (2, True)
    assert floe.store().policy_documents() == {}


def test_list_shows_what_is_no_longer_valid(floe, rows, policies):
    rows("good", "old")
    damage(floe, "old", json.dumps(document("old", rewriteDataFiles={"stratgy": "SORT"})))
    code, out, _ = policies("list")
    assert code == 1
    assert "refused: Floe store, row 'old'" in out
    floe.set("AIRFLOW__FLOE__POLICIES_IN_STORE", "False")
    assert "policies_in_store is False" in policies("list")[2]
