"""DAGs out of policies: one per policy, a task group for DAGs of your own, and the DAG for single tables."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, TaskGroup, get_parsing_context

from airflow_provider_floe import config
from airflow_provider_floe.errors import ConfigurationError, FloeError, InvalidPolicy, PolicyNotFound
from airflow_provider_floe.operators.assess import FloeAssessOperator
from airflow_provider_floe.operators.base import maintained_outlets
from airflow_provider_floe.operators.execute import FloeExecuteOperator
from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator
from airflow_provider_floe.operators.plan import FloePlanOperator
from airflow_provider_floe.operators.verdict import FloeVerdictOperator
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policy_rows import rows_for_parsing
from airflow_provider_floe.policy_source import as_policy, load_named, load_path
from airflow_provider_floe.tables import Operation
from airflow_provider_floe.timetable import policy_timetable

log = logging.getLogger(__name__)

DAG_ID_PREFIX = "floe_policy_"
TABLE_DAG_ID = "floe_maintenance"
START_DATE = datetime(2025, 1, 1, tzinfo=UTC)
"""Fixed, so that the same policies serialise to the same bytes. With catchup off it starts nothing by itself."""

PolicyLike = Policy | dict[str, Any] | str
_FROM_CONFIGURATION: Any = object()


@dataclass(frozen=True)
class PolicySelection:
    """Policies of one DAG.

    :ivar policies: those that the DAG runs.
    :ivar inline: those of them that stand in the DAG and in no file.
    :ivar path: file or folder of all policies.
    """

    policies: tuple[Policy, ...]
    inline: tuple[Policy, ...]
    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the DAG's policies."""
        return tuple(policy.name for policy in self.policies)


def select_policies(given: PolicyLike | Sequence[PolicyLike] | PolicySelection, path: Path) -> PolicySelection:
    """Look up names in files and the Floe store; take documents as they are.

    :raises InvalidPolicy: when a document is not valid.
    :raises PolicyNotFound: when no policy there has a given name.
    """
    if isinstance(given, PolicySelection):
        return given
    wanted = [given] if isinstance(given, str | dict | Policy) else list(given)
    inline = tuple(as_policy(one) for one in wanted if not isinstance(one, str))
    names = [one for one in wanted if isinstance(one, str)]
    loaded = {policy.name: policy for policy in load_path(path, rows_for_parsing().documents).all} if names else {}
    for name in names:
        if name not in loaded:
            place = f"{path} or the Floe store" if config.policies_in_store() else path
            raise PolicyNotFound(
                f"no policy named {name!r} in {place}: there are {', '.join(sorted(loaded)) or 'none'}"
            )
    policies = sorted((*inline, *(loaded[name] for name in names)), key=lambda policy: policy.name)
    return PolicySelection(tuple(policies), inline, path)


class FloePolicyDag(DAG):
    """The DAG of one policy, or of several that share one ranking: assess, plan, execute, verdict.

    :param policy: a policy document, the name of one in the policy files, or several of either.
    :param policies_path: file or folder of policies; default ``[floe] policies_path``, else ``policies`` beside the
        DAG file.
    :param dag_id: default ``floe_policy_<name>``; needed for several policies.
    :param schedule: default: the slots of the policies' schedules, or None with ``[floe] schedule_policies = False``.
    :param task_kwargs: arguments for all tasks, such as ``pool``, ``retries``, ``queue``, ``store_conn_id``,
        ``deferrable``, ``max_tasks_per_table``.
    :param dag_kwargs: every other argument of Airflow's ``DAG``.
    """

    def __init__(
        self,
        policy: PolicyLike | Sequence[PolicyLike] | PolicySelection,
        *,
        policies_path: str | Path | None = None,
        dag_id: str | None = None,
        schedule: Any = _FROM_CONFIGURATION,
        task_kwargs: dict[str, Any] | None = None,
        **dag_kwargs: Any,
    ) -> None:
        dag_file = _calling_file()
        path = Path(policies_path) if policies_path else config.policies_path(beside=dag_file)
        selection = select_policies(policy, path)
        super().__init__(
            dag_id=dag_id or _dag_id(selection),
            schedule=_schedule(selection.policies) if schedule is _FROM_CONFIGURATION else schedule,
            **{**_dag_defaults(selection), **dag_kwargs},
        )
        self.fileloc = dag_file
        add_tasks(selection, {**(task_kwargs or {}), "dag": self}, form=True)


class FloeTaskGroup(TaskGroup):
    """The tasks of policies as a group inside a DAG of your own.

    :param policy: a policy document, the name of one in the policy files, or several of either.
    :param group_id: default ``floe``.
    :param policies_path: see :class:`FloePolicyDag`.
    :param task_kwargs: arguments for all tasks, such as ``pool``, ``retries``, ``queue``, ``store_conn_id``,
        ``deferrable``, ``max_tasks_per_table``.
    :param group_kwargs: every other argument of Airflow's ``TaskGroup``.
    """

    def __init__(
        self,
        policy: PolicyLike | Sequence[PolicyLike],
        *,
        group_id: str = "floe",
        policies_path: str | Path | None = None,
        task_kwargs: dict[str, Any] | None = None,
        **group_kwargs: Any,
    ) -> None:
        path = Path(policies_path) if policies_path else config.policies_path(beside=_calling_file())
        super().__init__(group_id, **group_kwargs)
        add_tasks(select_policies(policy, path), {**(task_kwargs or {}), "dag": self.dag, "task_group": self})


def add_tasks(selection: PolicySelection, kwargs: dict[str, Any], *, form: bool = False) -> None:
    """Create assess, plan, execute (mapped over batches) and verdict, the only leaf.

    :param kwargs: for all four tasks; ``deferrable`` for the one that executes, ``max_tasks_per_table`` for the one
        that plans.
    :param form: whether the DAG has the Params of :func:`_run_params`.
    """
    kwargs = {"pool": config.pool(), **kwargs}
    deferring = _taken_out(kwargs, "deferrable")
    sharing = _taken_out(kwargs, "max_tasks_per_table")
    sources: dict[str, Any] = {"policies_path": str(selection.path), "inline_policies": selection.inline}
    asked: dict[str, Any] = (
        {
            "operations": "{{ params.operations | tojson }}",
            "force": "{{ params.force }}",
            "dry_run": "{{ params.dry_run }}",
            "strict_conf": True,
        }
        if form
        else {}
    )
    assess = FloeAssessOperator(task_id="assess", policies=selection.names, **asked, **sources, **kwargs)
    plan = FloePlanOperator(
        task_id="plan",
        assessment_id=assess.output,  # type: ignore[arg-type]  # resolved to its text before the task runs
        trigger_rule="none_failed",
        **sharing,
        **sources,
        **kwargs,
    )
    execute = FloeExecuteOperator.partial(
        task_id="execute",
        map_index_template="{{ task.batch_label }}",
        outlets=maintained_outlets(),
        **deferring,
        **kwargs,
    ).expand_kwargs(plan.output)
    verdict = FloeVerdictOperator(
        task_id="verdict",
        assess_task_id=assess.task_id,
        plan_task_id=plan.task_id,
        execute_task_id=execute.task_id,
        **kwargs,
    )
    execute >> verdict


def _taken_out(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    """An argument that is for one task only, where it is given."""
    return {name: kwargs.pop(name)} if name in kwargs else {}


def load_policy_dags(
    namespace: MutableMapping[str, Any], *, policies_path: str | Path | None = None, **dag_kwargs: Any
) -> None:
    """Put one DAG for each policy into a DAG file's namespace; bad policies are left out.

    Inside a task only the DAG that the task belongs to is built. Nothing but policy files is read, and with
    ``[floe] policies_in_store`` the revision of the store's policies. Call :func:`raise_policy_errors` in a second
    file, so that bad policies show as an import error while the good DAGs stay active.

    :param namespace: ``globals()`` of the DAG file.
    :param policies_path: see :class:`FloePolicyDag`.
    :param dag_kwargs: arguments of :class:`FloePolicyDag` for all DAGs.
    """
    path = _path(namespace, policies_path)
    wanted = get_parsing_context().dag_id
    try:
        if wanted is None:
            policies = load_path(path, rows_for_parsing().documents).all
        else:
            named = load_named(path, wanted.removeprefix(DAG_ID_PREFIX)) if wanted.startswith(DAG_ID_PREFIX) else None
            policies = (named,) if named else ()
    except FloeError as error:
        log.error("%s", error)
        return
    for policy in policies:
        namespace[f"{DAG_ID_PREFIX}{policy.name}"] = FloePolicyDag(PolicySelection((policy,), (), path), **dag_kwargs)


def raise_policy_errors(*, policies_path: str | Path | None = None) -> None:
    """Raise what is wrong with the policies, for a DAG file of its own.

    :param policies_path: as for :func:`load_policy_dags`.
    :raises InvalidPolicy: naming each bad policy's file, line, field and fix, and a Floe store that does not answer.
    :raises ConfigurationError: when there is no such file or folder.
    """
    if get_parsing_context().dag_id is not None:
        return
    rows = rows_for_parsing()
    path = Path(policies_path) if policies_path else config.policies_path(beside=_calling_file())
    loaded = load_path(path, rows.documents)
    told = [f"- {problem}" for problem in loaded.problems]
    if told:
        count = len(told)
        could = f"{count} Floe {'policy' if count == 1 else 'policies'} could not be loaded; "
        told.insert(0, f"{could}{len(loaded.policies)} could.")
    if rows.problem:
        told.insert(0, rows.problem)
    if told:
        raise InvalidPolicy("\n".join(told))


def table_maintenance_dag(
    dag_id: str = TABLE_DAG_ID, *, task_kwargs: dict[str, Any] | None = None, **dag_kwargs: Any
) -> DAG:
    """The DAG that maintains the one table that the run's conf names; its Params make the trigger form.

    :param task_kwargs: arguments for the task, such as ``pool``, ``retries``, ``policies_path``.
    :param dag_kwargs: every other argument of Airflow's ``DAG``.
    """
    dag = DAG(
        dag_id=dag_id,
        schedule=None,
        **{
            "description": "Maintain one Iceberg table now",
            "doc_md": _TABLE_DAG_DOC,
            "start_date": START_DATE,
            "catchup": False,
            "tags": ["floe", "iceberg"],
            "params": {**_table_params(), **_run_params()},
            **dag_kwargs,
        },
    )
    dag.fileloc = _calling_file()
    FloeMaintenanceOperator(
        task_id="maintain",
        dag=dag,
        catalog="{{ params.catalog }}",
        namespace="{{ params.namespace | tojson }}",
        table="{{ params.table }}",
        policy="{{ params.policy or '' }}",
        operations="{{ params.operations | tojson }}",
        force="{{ params.force }}",
        dry_run="{{ params.dry_run }}",
        mode=RunMode.TABLE_CONF,
        strict_conf=True,
        **{"pool": config.pool(), **(task_kwargs or {})},
    )
    return dag


_TABLE_DAG_DOC = """Assess, plan and execute the maintenance of one table, under the policies that govern it.

Schedules and windows are not looked at. Trigger it with a conf such as
`{"catalog": "lake", "namespace": "sales.eu", "table": "orders"}`.
"""


def _run_params() -> dict[str, Param]:
    names = [operation.value for operation in Operation]
    return {
        "operations": Param(
            [],
            type="array",
            items={"type": "string"},
            examples=names,
            title="Operations",
            description="Only these operations; none means all that policies govern.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Skip all gates (conditions, intervals, backoff). Safety checks always stay.",
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Stop after the plan."),
    }


def _table_params() -> dict[str, Param]:
    return {
        "catalog": Param(
            type="string",
            minLength=1,
            examples=list(config.catalog_conn_ids()) or None,
            title="Catalog",
            description="The catalog's name: its connection id, unless the connection says catalog_name.",
        ),
        "namespace": Param(
            type=["string", "array"],
            minLength=1,
            items={"type": "string", "minLength": 1},
            minItems=1,
            title="Namespace",
            description='Levels separated by dots, "a.b", or a list.',
        ),
        "table": Param(type="string", minLength=1, title="Table", description="The table's name."),
        "policy": Param(
            None,
            type=["null", "string"],
            title="Policy",
            description="Follow this policy; empty means the policies that govern the table.",
        ),
    }


def _dag_id(selection: PolicySelection) -> str:
    if len(selection.policies) != 1:
        raise ConfigurationError("FloePolicyDag over several policies needs a dag_id")
    return f"{DAG_ID_PREFIX}{selection.policies[0].name}"


def _dag_defaults(selection: PolicySelection) -> dict[str, Any]:
    tags = {f"{key}:{value}"[:100] for policy in selection.policies for key, value in policy.tags.items()}
    state = {"disabled"} if not any(policy.enabled for policy in selection.policies) else set()
    return {
        "description": "; ".join(policy.description or policy.name for policy in selection.policies),
        "doc_md": "\n\n".join(_document(policy) for policy in selection.policies),
        "start_date": START_DATE,
        "catchup": False,
        "max_active_runs": 1,
        "tags": sorted({"floe", "iceberg"} | state | tags),
        "params": _run_params(),
    }


def _document(policy: Policy) -> str:
    """The policy as written; also makes a new DAG version whenever the policy changes."""
    written = policy.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return f"Policy **{policy.name}**, revision {policy.revision}\n\n```json\n{json.dumps(written, indent=2)}\n```\n"


def _schedule(policies: Sequence[Policy]) -> Any:
    if not config.schedule_policies():
        return None
    return policy_timetable(policies, config.default_timezone())


def _path(namespace: MutableMapping[str, Any], policies_path: str | Path | None) -> Path:
    return Path(policies_path) if policies_path else config.policies_path(beside=namespace.get("__file__") or ".")


def _calling_file() -> str:
    """The first file up the stack that is not of this package: the DAG file."""
    package = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(package) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename
