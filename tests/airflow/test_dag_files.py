"""The DAG files as a deployment uses them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_floe.dag_factory import load_policy_dags
from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy
from airflow_provider_floe.loader_files import DAG_FILES, write_loader_files

REPOSITORY_DAGS = Path(__file__).parents[2] / "dags"


def load(folder: Path) -> tuple[dict[str, object], dict[str, str]]:
    """DAGs and import errors of a folder, as the DAG processor finds them."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=str(folder))
    return dict(bag.dags), {Path(file).name: text for file, text in bag.import_errors.items()}


@pytest.fixture
def dags_folder(floe):
    write_loader_files(floe.policies.parent)
    return floe.policies.parent


def test_the_repositorys_dags_load(floe):
    floe.write("compact")
    dags, errors = load(REPOSITORY_DAGS)
    assert errors == {}
    assert set(dags) == {"floe_policy_compact", "floe_maintenance", "example_floe_operator"}


def test_the_files_that_init_writes_are_the_repositorys():
    for name, text in DAG_FILES.items():
        assert (REPOSITORY_DAGS / name).read_text() == text


def test_init_leaves_existing_files_alone(tmp_path):
    mine = tmp_path / "floe_policies.py"
    mine.write_text("# mine\n")
    assert write_loader_files(tmp_path)[mine] is False
    assert mine.read_text() == "# mine\n"
    assert (tmp_path / "policies" / "example.yaml").exists()


def test_the_example_policy_is_good_but_disabled(tmp_path):
    from airflow_provider_floe.policies.loading import load_policies

    write_loader_files(tmp_path)
    found = load_policies([tmp_path / "policies"])
    assert found.problems == ()
    assert [policy.enabled for policy in found.all] == [False]


def test_policies_stand_beside_the_dag_file_unless_configured(floe, dags_folder, monkeypatch):
    monkeypatch.delenv("AIRFLOW__FLOE__POLICIES_PATH")
    floe.write("compact")
    dags, errors = load(dags_folder)
    assert errors == {}
    assert "floe_policy_compact" in dags
    assert dags["floe_policy_compact"].fileloc == str(dags_folder / "floe_policies.py")


def test_a_bad_policy_shows_as_an_import_error_and_the_good_ones_stay(floe, dags_folder):
    floe.write("good")
    floe.write("bad", rewriteDataFiles={"stratgy": "SORT"})
    dags, errors = load(dags_folder)
    assert set(dags) == {"floe_policy_good", "floe_maintenance"}
    assert set(errors) == {"floe_policy_errors.py"}
    for part in ("1 Floe policy could not be loaded; 1 could", "bad.json:1", "stratgy", "did you mean 'strategy'"):
        assert part in errors["floe_policy_errors.py"]


def test_a_missing_policy_folder_is_named(floe, dags_folder, monkeypatch):
    monkeypatch.setenv("AIRFLOW__FLOE__POLICIES_PATH", str(floe.folder / "nowhere"))
    dags, errors = load(dags_folder)
    assert set(dags) == {"floe_maintenance"}
    assert "nowhere does not exist" in errors["floe_policy_errors.py"]
    assert "[floe] policies_path" in errors["floe_policy_errors.py"]


def test_inside_a_task_only_its_own_dag_is_built(floe, monkeypatch):
    from airflow_provider_floe.policies import loading

    for number in range(5):
        floe.write(f"p{number}")
    parsed = []
    read_json = loading.read_json
    monkeypatch.setattr(loading, "read_json", lambda text: parsed.append(text) or read_json(text))
    namespace: dict[str, object] = {"__file__": str(floe.policies.parent / "floe_policies.py")}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "floe_policy_p3")
    load_policy_dags(namespace)
    assert set(namespace) - {"__file__"} == {"floe_policy_p3"}
    assert len(parsed) == 1


def test_a_thousand_policies_become_a_thousand_dags_without_any_catalog(floe, monkeypatch):
    from airflow.sdk import BaseHook

    def refuse(conn_id):
        raise AssertionError(f"connection {conn_id} was looked up while parsing")

    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    document = "\n---\n".join(
        f"name: p{number}\ntablePattern: lake.n{number}.*\nrewriteDataFiles: {{}}\n"
        f"rewriteDataFilesSchedule: {{interval: 1}}"
        for number in range(1000)
    )
    (floe.policies / "many.yaml").write_text(document)
    namespace: dict[str, object] = {"__file__": str(floe.policies.parent / "floe_policies.py")}
    load_policy_dags(namespace)
    assert len([name for name in namespace if name.startswith("floe_policy_")]) == 1000


def test_parsing_loads_no_data_library(floe, dags_folder):
    floe.write("compact")
    code = (
        "import runpy, sys\n"
        "for name in sys.argv[1:]:\n    runpy.run_path(name)\n"
        "print('loaded', [name for name in ('pyiceberg', 'pyarrow', 'duckdb', 'obstore') if name in sys.modules])"
    )
    files = [str(dags_folder / name) for name in DAG_FILES]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_the_same_policies_serialise_to_the_same_bytes_in_every_process(floe, dags_folder):
    floe.write("compact", tags={"team": "web", "tier": "gold"}, rewriteDataFilesSchedule={"interval": "PT6H"})
    code = (
        "import sys\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "from airflow.models.serialized_dag import SerializedDagModel\n"
        "from airflow.serialization.serialized_objects import DagSerialization\n"
        "bag = DagBag(dag_folder=sys.argv[1])\n"
        "for name, dag in sorted(bag.dags.items()):\n"
        "    print('hash', name, SerializedDagModel.hash(DagSerialization.to_dict(dag)))\n"
    )
    hashes = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(dags_folder)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.append([line for line in done.stdout.splitlines() if line.startswith("hash")])
    assert len(hashes[0]) == 2
    assert hashes[0] == hashes[1]


def test_raise_policy_errors_names_what_is_wrong(floe):
    from airflow_provider_floe.dag_factory import raise_policy_errors

    floe.write("good")
    raise_policy_errors()
    floe.write("twice")
    (floe.policies / "other.json").write_text((floe.policies / "twice.json").read_text())
    with pytest.raises(InvalidPolicy, match="twice"):
        raise_policy_errors()
    with pytest.raises(ConfigurationError, match="does not exist"):
        raise_policy_errors(policies_path=floe.folder / "nowhere")
