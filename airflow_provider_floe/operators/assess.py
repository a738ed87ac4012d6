"""Assess task: find the governed tables and report on their health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_floe.errors import PolicyDisabled, PolicyNotFound
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.operators.arguments import as_bool, as_operations
from airflow_provider_floe.operators.base import PolicyOperator, run_mode, where
from airflow_provider_floe.tables import Operation

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_floe.policies.model import Policy


class FloeAssessOperator(PolicyOperator):
    """Assess all tables that policies govern; returns the assessment's id.

    Runs that Airflow schedules keep to the policies' schedules and windows; others do not.

    :param policies: names of the policies whose tables to assess; empty means all.
    :param operations: only these operations, by Spark's name or the policy's key; None means all.
    :param force: skip all gates, never a safety check.
    :param dry_run: stop after the plan; nothing is executed, and no budget or slot is used up.
    """

    template_fields: Sequence[str] = ("operations", "force", "plan_only")

    def __init__(
        self,
        *,
        policies: Sequence[str] = (),
        operations: Sequence[Operation | str] | str | None = None,
        force: bool | str = False,
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.policies = tuple(policies)
        self.operations = operations
        self.force = force
        self.plan_only = dry_run  # BaseOperator has a method dry_run

    def execute(self, context: Context) -> str:
        """Assess, and keep the assessment in the Floe store."""
        from airflow_provider_floe.maintenance.assess import assess

        with self.environment(context) as (env, _):
            check_named(env.policies, self.policies)
            assessment = assess(env, self._request(context))
        self.log.info(
            "assessment %s: %s tables assessed, %s not",
            assessment.id,
            len(assessment.reports),
            len(assessment.failures),
        )
        return assessment.id

    def _request(self, context: Context) -> RunRequest:
        return RunRequest(
            run_id=context["run_id"],
            mode=run_mode(context),
            run_after=context["dag_run"].run_after,
            policies=self.policies,
            operations=as_operations(self.operations),
            force=as_bool(self.force, "force"),
            dry_run=as_bool(self.plan_only, "dry_run"),
            context=where(context),
        )


def check_named(policies: Sequence[Policy], names: Sequence[str]) -> None:
    """Refuse names that cannot govern anything.

    :raises PolicyNotFound: when there is no such policy.
    :raises PolicyDisabled: when it is disabled.
    """
    by_name = {policy.name: policy for policy in policies}
    for name in names:
        if name not in by_name:
            raise PolicyNotFound(f"there is no policy {name!r}: known are {', '.join(sorted(by_name)) or 'none'}")
        if not by_name[name].enabled:
            raise PolicyDisabled(f"policy {name!r} is disabled: set enabled: true in its document")
