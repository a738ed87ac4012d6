"""Links from a task in Airflow's UI to what it did, here and elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class FloeRecordLink(BaseOperatorLink):
    """Leads to the task's XCom page, where the ids, tables and outcomes of its operation records stand."""

    name = "Floe records"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Address of the page in Airflow's UI.

        :param operator: the task.
        :param ti_key: its instance.
        """
        base = conf.get("api", "base_url", fallback="/").rstrip("/")
        index = -1 if ti_key.map_index is None else ti_key.map_index
        mapped = f"/mapped/{index}" if index >= 0 else ""
        dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
        return f"{base}/dags/{dag}/runs/{run}/tasks/{task}{mapped}/xcom"


class FloeJobLink(BaseOperatorLink):
    """Leads to the engine's own page for the job that the task sent last; to its records where there is none."""

    name = "Engine job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Address of the page.

        :param operator: the task, with the address in ``job_url`` once there is a job.
        :param ti_key: its instance.
        """
        return getattr(operator, "job_url", None) or FloeRecordLink().get_link(operator, ti_key=ti_key)
