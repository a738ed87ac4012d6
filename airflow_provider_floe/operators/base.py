"""What the operators share: environment, cancellation, errors in Airflow's terms."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AssetAlias, BaseOperator

from airflow_provider_floe import config, errors
from airflow_provider_floe.assets import MAINTAINED_ALIAS
from airflow_provider_floe.errors import ConfigurationError, FloeError, OperationCancelled
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policy_source import PolicySource, as_policies

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_floe.airflow_events import AirflowEvents
    from airflow_provider_floe.maintenance.environment import Environment
    from airflow_provider_floe.policies.model import Policy
    from airflow_provider_floe.stores.protocols import OperationRecord

RECORDS_KEY = "floe_records"
"""XCom key of the operation records in short."""


class FloeOperator(BaseOperator):
    """Base of Floe's operators.

    :param catalog_conn_id: connection of the one catalog to work with; default: all of ``[floe] catalogs``.
    :param store_conn_id: PostgreSQL connection of the Floe store; default ``[floe] store_conn_id``.
    """

    ui_color = "#d9f0f5"
    several_tasks = True
    """Whether other tasks of the DAG must see what this one stores."""

    def __init__(self, *, catalog_conn_id: str | None = None, store_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.catalog_conn_id = catalog_conn_id
        self.store_conn_id = store_conn_id
        self._stop_asked = False
        self._supervisor: int | None = None

    def on_kill(self) -> None:
        """Stop before the next side effect."""
        self.log.warning("asked to stop: the running operation ends before its next side effect")
        self._stop_asked = True

    def cancelled(self) -> bool:
        """Whether the task was asked to stop, or its supervisor is dead: Airflow then counts it as failed."""
        return self._stop_asked or self._supervisor not in (None, os.getppid())

    def load_policies(self, context: Context) -> tuple[Policy, ...]:
        """Every policy that this task has to know; none by default."""
        return ()

    @contextmanager
    def environment(self, context: Context) -> Iterator[tuple[Environment, AirflowEvents]]:
        """Everything the use cases need, with Floe's errors turned into Airflow's."""
        from airflow_provider_floe.airflow_environment import open_environment

        self._supervisor = os.getppid()
        with (
            airflow_errors(),
            open_environment(
                self.load_policies(context),
                catalog_conn_ids=[self.catalog_conn_id] if self.catalog_conn_id else None,
                store_conn_id=self.store_conn_id,
                several_tasks=self.several_tasks,
            ) as opened,
        ):
            yield opened


class PolicyOperator(FloeOperator):
    """Base of the operators that look at policies.

    :param policies_path: file or folder of policies; default ``[floe] policies_path``, else ``policies`` beside the
        DAG file.
    :param inline_policies: policies that stand in the DAG, beside those in files.
    :param strict_conf: refuse keys of the run's conf that are not Params of the DAG.
    """

    def __init__(
        self,
        *,
        policies_path: str | Path | None = None,
        inline_policies: Policy | dict[str, Any] | Sequence[Policy | dict[str, Any]] = (),
        strict_conf: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.policies_path = policies_path
        self.inline_policies = as_policies(inline_policies)
        self.strict_conf = strict_conf

    def load_policies(self, context: Context) -> tuple[Policy, ...]:
        """Those in files, those in the Floe store where ``[floe] policies_in_store`` says so, and those in the DAG.

        :raises ConfigurationError: when there are no files and none in the DAG, or the conf has an unknown key.
        """
        if self.strict_conf:
            refuse_unknown_conf(context)
        path = Path(self.policies_path) if self.policies_path else config.policies_path(beside=context["dag"].fileloc)
        return PolicySource(path=path, inline=self.inline_policies, required=not self.inline_policies).load()


def maintained_outlets() -> list[AssetAlias]:
    """Outlets of a task that changes tables."""
    return [AssetAlias(MAINTAINED_ALIAS)] if config.emit_events() else []


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn errors that a retry cannot help into Airflow's failure without retry.

    :raises AirflowFailException: for a :class:`FloeError` that is not retryable.
    """
    try:
        yield
    except OperationCancelled:  # a worker that shuts down; when a user asked, the state is decided already
        raise
    except FloeError as error:
        if error.retryable:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def where(context: Context) -> dict[str, Any]:
    """Where a task runs, for the records."""
    instance = context["ti"]
    return {
        "dag_id": instance.dag_id,
        "run_id": instance.run_id,
        "task_id": instance.task_id,
        "map_index": instance.map_index,
        "try_number": instance.try_number,
        "host": socket.gethostname(),
    }


def run_mode(context: Context) -> RunMode:
    """What started the DAG run; only Airflow's own scheduling looks at slots and windows."""
    run_type = getattr(context["dag_run"], "run_type", None)
    kind = str(getattr(run_type, "value", run_type))
    if kind in ("scheduled", "backfill"):
        return RunMode.SCHEDULED
    return RunMode.ASSET if kind.startswith("asset") else RunMode.OPERATOR


def refuse_unknown_conf(context: Context) -> None:
    """Refuse keys of the run's conf that Airflow accepts in silence.

    :raises ConfigurationError: naming the key and the nearest Param.
    """
    known = sorted(context["dag"].params)
    for key in sorted(getattr(context["dag_run"], "conf", None) or {}):
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigurationError(f"unknown key {key!r} in the run's conf: {hint}Known are {', '.join(known)}")


def retry_can_help(records: Sequence[OperationRecord]) -> bool:
    """Whether running again may succeed: some failure is not one of Floe's final errors."""
    kinds = [getattr(errors, record.error_type, None) for record in records if record.error_type]
    return any(kind is None or kind.retryable for kind in kinds)


def record_lines(records: Sequence[OperationRecord]) -> list[dict[str, str | None]]:
    """Records in short, for XCom: what the record link shows."""
    return [
        {
            "operation_id": record.id,
            "table": str(record.table.ref()),
            "operation": record.operation.value,
            "status": record.status.value,
            "error": record.error_type,
        }
        for record in records
    ]
