"""Plan task: decide what to do on every assessed table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_floe.operators.base import PolicyOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_floe.planning.model import Plan

PLAN_ID_KEY = "plan_id"
"""XCom key of the plan's id."""


class FloePlanOperator(PolicyOperator):
    """Plan an assessment. Returns the arguments of one execute task for each batch; pushes the id as ``plan_id``.

    Every decision is explained in the task's log, with its numbers.

    :param assessment_id: what the assess task returned.
    :param max_tasks_per_table: most execute tasks that share the file groups of one table's rewrite; default
        ``[floe] max_tasks_per_table``.
    """

    template_fields: Sequence[str] = ("assessment_id",)

    def __init__(self, *, assessment_id: str, max_tasks_per_table: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_tasks_per_table is not None and max_tasks_per_table < 1:
            raise ValueError(f"max_tasks_per_table={max_tasks_per_table}: give 1 or more")
        self.assessment_id = assessment_id
        self.max_tasks_per_table = max_tasks_per_table

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Plan, and keep the plan in the Floe store."""
        from airflow_provider_floe.maintenance.plan import plan

        with self.environment(context) as (env, _):
            most = self.max_tasks_per_table or env.settings.max_tasks_per_table
            made = plan(env, self.assessment_id, max_tasks_per_table=most)
        context["ti"].xcom_push(key=PLAN_ID_KEY, value=made.id)
        chosen = made.to_run
        self.log.info(
            "plan %s: %s of %s decisions are to run; batches: %s%s",
            made.id,
            len(chosen),
            len(made.items),
            len(made.batches),
            " (dry run: none is executed)" if made.dry_run else "",
        )
        if made.dry_run:
            return []
        return [
            {"plan_id": made.id, "batch": batch, "batch_label": _label(made, batch)}
            for batch in range(len(made.batches) + len(made.helpers))
        ]


def _label(plan: Plan, batch: int) -> str:
    if batch >= len(plan.batches):
        number = batch - len(plan.batches)
        item_id = plan.helpers[number]
        return f"{plan.item(item_id).table.ref()}, helper {plan.helpers[: number + 1].count(item_id)}"
    tables = list(dict.fromkeys(str(plan.item(item_id).table.ref()) for item_id in plan.batches[batch]))
    return tables[0] if len(tables) == 1 else f"{tables[0]} and {len(tables) - 1} more"
