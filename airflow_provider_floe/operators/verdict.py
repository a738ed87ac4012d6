"""Verdict task: the only leaf of a policy DAG; fails when a table or a task before it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, TriggerRule

from airflow_provider_floe.operators.base import FloeOperator
from airflow_provider_floe.operators.plan import PLAN_ID_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class FloeVerdictOperator(FloeOperator):
    """Judge a run by its records and by the tasks before it.

    :param assess_task_id: task that returned the assessment's id.
    :param plan_task_id: task that pushed the plan's id.
    :param execute_task_id: the mapped execute task.
    """

    def __init__(self, *, assess_task_id: str, plan_task_id: str, execute_task_id: str, **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", TriggerRule.ALL_DONE)
        super().__init__(**kwargs)
        self.assess_task_id = assess_task_id
        self.plan_task_id = plan_task_id
        self.execute_task_id = execute_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Judge, and log one line for each table.

        :raises AirflowFailException: naming every table and task that failed.
        """
        from airflow_provider_floe.maintenance.verdict import verdict

        instance = context["ti"]
        states = self._states(context)
        plan_id = assessment_id = None
        if states.get(self.assess_task_id) == "success":
            assessment_id = instance.xcom_pull(task_ids=self.assess_task_id, map_indexes=-1)
        if states.get(self.plan_task_id) == "success":
            plan_id = instance.xcom_pull(task_ids=self.plan_task_id, key=PLAN_ID_KEY, map_indexes=-1)
        failed_tasks = sorted(name for name, state in states.items() if state == "failed")
        if not failed_tasks and states.get(self.assess_task_id) == "upstream_failed":
            failed_tasks = [f"before {self.assess_task_id}"]
        with self.environment(context) as (env, _):
            found = verdict(env, plan_id, assessment_id, failed_tasks)
        for line in found.summary:
            self.log.info("%s", line)
        if found.failed:
            raise AirflowFailException(
                f"{len(found.failures)} failed:\n" + "\n".join(f"- {line}" for line in found.failures)
            )
        return {"plan_id": plan_id, "assessment_id": assessment_id, "tables": len(found.summary)}

    def _states(self, context: Context) -> dict[str, str]:
        """States of this run's tasks before this one; those of mapped tasks by ``task_<index>``."""
        instance = context["ti"]
        found: dict[str, Any] = instance.get_task_states(
            dag_id=instance.dag_id,
            task_ids=[self.assess_task_id, self.plan_task_id, self.execute_task_id],
            run_ids=[instance.run_id],
        ).get(instance.run_id, {})
        return {name: str(getattr(state, "value", state)) for name, state in found.items()}
