"""What DAGs out of policies cost the DAG processor, beside hand-written DAGs of the same shape.

Policies become as many DAGs (``--scale full``: 1,000) of four tasks, one of them mapped, with three Params; the
hand-written ones have the same tasks, edges and Params, made of Airflow's own BaseOperator. Both are built and
serialised in one process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCALES = {"small": 50, "full": 1_000}
"""DAGs."""

HOME = tempfile.TemporaryDirectory()
os.environ.update(AIRFLOW_HOME=HOME.name, AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR")

POLICY = """
name: policy-{number:04}
tablePattern: lake.namespace_{number}.*
rewriteDataFiles:
  targetFileSizeBytes: 268435456
rewriteDataFilesSchedule:
  cronExpression: "{minute} * * * *"
expireSnapshots:
  retainLast: 10
expireSnapshotsSchedule:
  cronExpression: "{minute} * * * *"
"""


def main() -> None:
    """Print milliseconds for each DAG, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    total = SCALES[parser.parse_args().scale]
    from airflow.serialization.serialized_objects import DagSerialization

    policies = Path(HOME.name) / "policies"
    policies.mkdir()
    for number in range(total):
        text = POLICY.format(number=number, minute=number % 60)
        (policies / f"{number:04}.yaml").write_text(text)
    builders: dict[str, Callable[[int], dict[str, Any]]] = {
        "policy DAGs": lambda count: policy_dags(policies, count),
        "hand-written DAGs": hand_written_dags,
    }
    for build in builders.values():  # imports and caches
        DagSerialization.to_dict(next(iter(build(1).values())))
    costs = {}
    for name, build in builders.items():
        started = time.perf_counter()
        dags = build(total)
        built = time.perf_counter()
        for dag in dags.values():
            DagSerialization.to_dict(dag)
        done = time.perf_counter()
        assert len(dags) == total
        costs[name] = (1000 * (built - started) / total, 1000 * (done - built) / total)
    print(f"{total:,} DAGs; milliseconds for each  {'build':>8}{'serialise':>11}{'together':>10}")
    for name, (build_ms, serialise_ms) in costs.items():
        print(f"  {name:<32}{build_ms:>8.2f}{serialise_ms:>11.2f}{build_ms + serialise_ms:>10.2f}")
    ours, plain = (sum(cost) for cost in costs.values())
    print(f"  policy DAGs cost {ours / plain:.2f} times what hand-written DAGs cost")


def policy_dags(policies: Path, count: int) -> dict[str, Any]:
    """As the loader file makes them, from the files to the DAGs."""
    from airflow_provider_floe.dag_factory import DAG_ID_PREFIX, load_policy_dags

    if count == 1:
        policies = policies / "0000.yaml"
    namespace: dict[str, Any] = {"__file__": __file__}
    load_policy_dags(namespace, policies_path=policies)
    return {name: dag for name, dag in namespace.items() if name.startswith(DAG_ID_PREFIX)}


def hand_written_dags(count: int) -> dict[str, Any]:
    """What somebody would write for one table group, with Airflow's own classes."""
    from datetime import UTC, datetime

    from airflow.sdk import DAG, BaseOperator, Param, TriggerRule

    class Step(BaseOperator):
        template_fields = ("argument",)

        def __init__(self, argument: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.argument = argument

    dags = {}
    for number in range(count):
        with DAG(
            f"hand_written_{number:04}",
            schedule=f"{number % 60} * * * *",
            start_date=datetime(2025, 1, 1, tzinfo=UTC),
            catchup=False,
            max_active_runs=1,
            tags=["floe", "iceberg"],
            doc_md=POLICY.format(number=number, minute=number % 60),
            params={
                "operations": Param([], type="array", items={"type": "string"}),
                "force": Param(False, type="boolean"),
                "dry_run": Param(False, type="boolean"),
            },
        ) as dag:
            assess = Step(task_id="assess", argument="{{ params.operations }}")
            plan = Step(task_id="plan", argument=assess.output, trigger_rule=TriggerRule.NONE_FAILED)
            execute = Step.partial(task_id="execute").expand(argument=plan.output)
            execute >> Step(task_id="verdict", trigger_rule=TriggerRule.ALL_DONE)
        dags[dag.dag_id] = dag
    return dags


if __name__ == "__main__":
    main()
