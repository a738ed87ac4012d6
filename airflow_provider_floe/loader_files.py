"""The files that ``airflow floe init`` writes into a DAGs folder."""

from __future__ import annotations

from pathlib import Path

DAG_FILES = {
    "floe_policies.py": '''\
"""One Airflow dag for each Floe policy in ``policies/`` beside this file, or where configured."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import load_policy_dags

load_policy_dags(globals())
''',
    "floe_policy_errors.py": '''\
"""Shows Floe policies that cannot be loaded as an import error; the dags of good ones stay in Airflow."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import raise_policy_errors

raise_policy_errors()
''',
    "floe_maintenance.py": '''\
"""The Airflow dag that maintains the one table which the trigger form, or the run's conf, names."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import table_maintenance_dag

dag = table_maintenance_dag()
''',
}

EXAMPLE_POLICY = """\
# A Floe policy. `airflow floe schema` prints the JSON Schema for editors, `airflow floe validate` checks the folder.
name: example
description: Compact small files at night and keep a week of snapshots
tablePattern: lake.sales.*
enabled: false
rewriteDataFiles:
  strategy: BINPACK
rewriteDataFilesSchedule:
  cronExpression: "0 2 * * *"
expireSnapshots:
  retainLast: 5
  maxSnapshotAge: P7D
expireSnapshotsSchedule:
  interval: 1
"""


def write_loader_files(folder: Path) -> dict[Path, bool]:
    """Write the DAG files, and an example policy where there is no ``policies`` folder. Existing files stay.

    :returns: each file, and whether it was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / name: text for name, text in DAG_FILES.items()}
    policies = folder / "policies"
    if not policies.exists():
        policies.mkdir()
        files[policies / "example.yaml"] = EXAMPLE_POLICY
    written = {path: not path.exists() for path in files}
    for path, text in files.items():
        if written[path]:
            path.write_text(text, encoding="utf-8")
    return written
