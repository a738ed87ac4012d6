"""Execute task: carry out one batch of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_floe.errors import OperationCancelled
from airflow_provider_floe.links import FloeJobLink, FloeRecordLink
from airflow_provider_floe.operators.base import maintained_outlets, record_lines, where
from airflow_provider_floe.operators.deferral import DeferrableOperator
from airflow_provider_floe.operators.lineage import LineageMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class FloeExecuteOperator(LineageMixin, DeferrableOperator):
    """Run one batch of a plan: one large table or several small ones. Ends green; the verdict task judges.

    A retry runs only what is unfinished, and waits for a job that an earlier try left running elsewhere.

    :param plan_id: id of the plan.
    :param batch: number of the batch in the plan, from 0.
    :param batch_label: what the UI shows for this batch.
    :param deferrable: give up the worker while an engine elsewhere works, where its job can be found again; default
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("plan_id", "batch", "batch_label")
    operator_extra_links = (FloeRecordLink(), FloeJobLink())

    def __init__(self, *, plan_id: str, batch: int, batch_label: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("outlets", maintained_outlets())
        kwargs.setdefault("map_index_template", "{{ task.batch_label }}")
        super().__init__(**kwargs)
        self.plan_id = plan_id
        self.batch = batch
        self.batch_label = batch_label

    def execute(self, context: Context) -> dict[str, Any]:
        """Run what is unfinished of the batch.

        :raises OperationCancelled: when the task was asked to stop.
        :raises TaskDeferred: while a job runs elsewhere.
        """
        return self._run(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on when the job is over, or is to be looked after."""
        self.log.info("%s", event["message"])
        return self._run(context, event["operation_id"])

    def _run(self, context: Context, resumed: str | None = None) -> dict[str, Any]:
        from airflow_provider_floe.maintenance.execute import execute

        with self.environment(context) as (env, events), self.observed(env, events):
            self.show_job(context, events)
            result = execute(
                env,
                self.plan_id,
                int(self.batch),
                context=where(context),
                cancelled=self.cancelled,
                defer=self.may_defer(env),
                resumed=resumed,
            )
            if self.cancelled():
                raise OperationCancelled(f"batch {self.batch} of plan {self.plan_id} was cancelled")
            if result.waiting is None:
                events.recall(result.before)
        if result.waiting is not None:
            self.defer_until_over(result.waiting)
        if self.outlets:
            events.publish(context["outlet_events"])
        return {
            "plan_id": self.plan_id,
            "batch": int(self.batch),
            "records": record_lines(result.records),
            "finished before": record_lines(result.before),
        }
