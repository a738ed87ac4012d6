"""One table, from assessment to verdict, in one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_floe.errors import ConfigurationError, OperationCancelled
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.links import FloeJobLink, FloeRecordLink
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.operators.arguments import as_bool, as_namespace, as_operations, as_text
from airflow_provider_floe.operators.base import (
    RECORDS_KEY,
    PolicyOperator,
    maintained_outlets,
    record_lines,
    retry_can_help,
    where,
)
from airflow_provider_floe.operators.deferral import DeferrableOperator
from airflow_provider_floe.operators.lineage import LineageMixin
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policy_source import as_policy
from airflow_provider_floe.tables import Operation, TableRef

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_floe.maintenance.environment import Environment


class FloeMaintenanceOperator(LineageMixin, DeferrableOperator, PolicyOperator):
    """Assess, plan and execute the maintenance of one table in one task.

    All operations of the table are handled, each under the policy that governs it, unless a policy is named.
    Schedules and windows are not looked at; the other gates are, unless forced.

    :param table: ``"catalog.namespace.table"``, or the table's name alone together with ``namespace``.
    :param namespace: ``"a.b"`` or a list of levels.
    :param catalog: the catalog's name; with ``namespace``, it may be left out when only one catalog is configured.
    :param policy: name of the policy to follow, or a policy document written in the DAG.
    :param operations: only these operations, by Spark's name or the policy's key; None means all.
    :param force: skip all gates, never a safety check.
    :param dry_run: stop after the plan.
    :param mode: what the run counts as.
    :param deferrable: give up the worker while an engine elsewhere works, where its job can be found again; default
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("catalog", "namespace", "table", "policy", "operations", "force", "plan_only")
    operator_extra_links = (FloeRecordLink(), FloeJobLink())
    several_tasks = False

    def __init__(
        self,
        *,
        table: str,
        namespace: str | Sequence[str] | None = None,
        catalog: str | None = None,
        policy: str | dict[str, Any] | Policy | None = None,
        operations: Sequence[Operation | str] | str | None = None,
        force: bool | str = False,
        dry_run: bool | str = False,
        mode: RunMode = RunMode.OPERATOR,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("outlets", maintained_outlets())
        if isinstance(policy, dict | Policy):
            document = as_policy(policy)
            kwargs["inline_policies"] = [document]
            policy = document.name
        super().__init__(**kwargs)
        self.table = table
        self.namespace = namespace
        self.catalog = catalog
        self.policy = policy
        self.operations = operations
        self.force = force
        self.plan_only = dry_run  # BaseOperator has a method dry_run
        self.mode = mode

    def execute(self, context: Context) -> dict[str, Any]:
        """Maintain the table.

        :raises AirflowFailException: when an operation failed and running again cannot help.
        :raises AirflowException: when an operation failed and running again may help.
        :raises TaskDeferred: while a job runs elsewhere.
        """
        return self._run(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on when the job is over, or is to be looked after."""
        self.log.info("%s", event["message"])
        return self._run(context, event["operation_id"])

    def _run(self, context: Context, resumed: str | None = None) -> dict[str, Any]:
        from airflow_provider_floe.maintenance.run import run

        with self.environment(context) as (env, events), self.observed(env, events):
            self.show_job(context, events)
            result = run(
                env,
                self._request(context, env),
                cancelled=self.cancelled,
                defer=self.may_defer(env),
                resumed=resumed,
            )
            if self.cancelled():
                raise OperationCancelled(f"maintenance of {self.table} was cancelled")
            if result.waiting is None:
                events.recall(result.before)
        if result.waiting is not None:
            self.defer_until_over(result.waiting)
        for line in result.verdict.summary:
            self.log.info("%s", line)
        answer = self._answer(result)
        if result.verdict.failed:
            context["ti"].xcom_push(key=RECORDS_KEY, value=answer)
            told = "\n".join(result.verdict.failures)
            raise (
                AirflowException(told)
                if retry_can_help((*result.before, *result.records))
                else AirflowFailException(told)
            )
        if self.outlets:
            events.publish(context["outlet_events"])
        return answer

    def _request(self, context: Context, env: Environment) -> RunRequest:
        policy = as_text(self.policy) if isinstance(self.policy, str) else None
        return RunRequest(
            run_id=context["run_id"],
            mode=self.mode,
            run_after=context["dag_run"].run_after,
            policies=(policy,) if policy else (),
            table=TableId.of(self._table(env)),
            operations=as_operations(self.operations),
            force=as_bool(self.force, "force"),
            dry_run=as_bool(self.plan_only, "dry_run"),
            context=where(context),
        )

    def _table(self, env: Environment) -> TableRef:
        if self.namespace is None:
            return TableRef.parse(f"{self.catalog}.{self.table}" if self.catalog else self.table)
        if self.catalog:
            return TableRef.of(self.catalog, as_namespace(self.namespace), self.table)
        if len(env.catalogs) != 1:
            raise ConfigurationError(
                f"table {self.table!r} names no catalog, but several are configured: {', '.join(env.catalogs)}"
            )
        return TableRef.of(next(iter(env.catalogs)), as_namespace(self.namespace), self.table)

    @staticmethod
    def _answer(result: RunResult) -> dict[str, Any]:
        return {
            "assessment_id": result.assessment.id,
            "plan_id": result.plan.id,
            "records": record_lines((*result.before, *result.records)),
            "decisions": {item.operation.value: item.disposition.value for item in result.plan.items},
        }
