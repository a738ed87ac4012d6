"""Deferring: a task gives up its worker while a job runs elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import conf

from airflow_provider_floe.links import FloeJobLink
from airflow_provider_floe.operators.base import FloeOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_floe.airflow_events import AirflowEvents
    from airflow_provider_floe.maintenance.environment import Environment
    from airflow_provider_floe.maintenance.request import Waiting


class DeferrableOperator(FloeOperator):
    """Base of the operators that execute.

    :param deferrable: give up the worker while an engine elsewhere works, where the engine's job can be found again;
        default ``[operators] default_deferrable``.
    """

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        default = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = default if deferrable is None else deferrable
        self.job_url: str | None = None

    def may_defer(self, env: Environment) -> bool:
        """Whether to defer; not with a store in memory, which ends with this process."""
        if self.deferrable and not env.store.shared:
            self.log.info("deferrable: the Floe store is in memory, so this task waits for jobs elsewhere itself")
        return self.deferrable and env.store.shared

    def show_job(self, context: Context, events: AirflowEvents) -> None:
        """Have the task's link lead to the engine's own page for a job, as soon as there is one."""

        def show(url: str) -> None:
            if url != self.job_url:
                self.job_url = url
                context["ti"].xcom_push(key=FloeJobLink().xcom_key, value=url)

        events.on_job = show

    def defer_until_over(self, waiting: Waiting) -> NoReturn:
        """Defer until the job is over.

        :raises TaskDeferred: always.
        """
        from airflow_provider_floe.triggers.remote_job import FloeRemoteJobTrigger

        self.log.info("deferring while job %s runs on engine %s", waiting.job_id, waiting.engine)
        self.defer(
            trigger=FloeRemoteJobTrigger(
                operation_id=waiting.operation_id,
                lease_token=waiting.lease_token,
                deadline=waiting.deadline.isoformat() if waiting.deadline else None,
                catalog_conn_id=self.catalog_conn_id,
                store_conn_id=self.store_conn_id,
            ),
            method_name="execute_complete",
        )
