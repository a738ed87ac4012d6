"""Where events go on the Airflow side: the task log, Airflow's metrics, and asset events."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias, Stats

from airflow_provider_floe.assets import MAINTAINED_ALIAS
from airflow_provider_floe.maintenance.environment import log_event
from airflow_provider_floe.maintenance.events import Event, EventKind, operation_event
from airflow_provider_floe.planning.model import GateName
from airflow_provider_floe.tables import TableRef

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import OutletEventAccessorsProtocol
    from pydantic import JsonValue

    from airflow_provider_floe.stores.protocols import OperationRecord

log = logging.getLogger(__name__)

_LARGEST_CHANGE_LIST = 50


class AirflowEvents:
    """Takes every event of a task: logs it, counts it, and remembers which tables changed.

    Metric names carry no table and no policy, so their number stays small.

    :param running: how many operations run now, in the whole deployment.
    :param active_policies: how many policies are enabled.
    """

    def __init__(self, running: Callable[[], int], active_policies: int) -> None:
        self._running = running
        self._active_policies = active_policies
        self._changes: dict[TableRef, list[JsonValue]] = {}
        self.finished: list[Event] = []
        """Operations that ended, in order."""
        self.on_job: Callable[[str], None] | None = None
        """Called with the address of an engine's own page for a job."""

    def __call__(self, event: Event) -> None:
        """Take one event; never raises."""
        try:
            log_event(event)
            self._count(event)
        except Exception:
            log.warning("could not record event %s", event.kind, exc_info=True)
        if event.kind is EventKind.OPERATION_FINISHED:
            self.finished.append(event)
            self._remember_change(event)
        if event.kind is EventKind.JOB_SENT and event.data.get("url") and self.on_job:
            self._tell_job(event.data["url"])

    def recall(self, records: Sequence[OperationRecord]) -> None:
        """What an earlier part or try of the task did, which has told nobody: asset events travel with success only."""
        for record in records:
            event = operation_event(EventKind.OPERATION_FINISHED, record, record.finished_at or record.started_at, "")
            self.finished.append(event)
            self._remember_change(event)

    def _tell_job(self, url: str) -> None:
        try:
            assert self.on_job is not None
            self.on_job(url)
        except Exception:
            log.warning("could not show %s", url, exc_info=True)

    def _remember_change(self, event: Event) -> None:
        if event.changed and event.table is not None:
            self._changes.setdefault(event.table.ref(), []).append(
                f"{event.operation} {event.data.get('operation_id', '')}".rstrip()
            )

    @property
    def changed(self) -> tuple[TableRef, ...]:
        """Tables that really changed."""
        return tuple(sorted(self._changes))

    def publish(self, outlet_events: OutletEventAccessorsProtocol) -> None:
        """Attach an asset event for each changed table to the task's outlet; sent when the task succeeds."""
        for table, operations in sorted(self._changes.items()):
            outlet_events[AssetAlias(MAINTAINED_ALIAS)].add(
                Asset(uri=table.uri()), extra={"operations": operations[:_LARGEST_CHANGE_LIST]}
            )

    def _count(self, event: Event) -> None:
        match event.kind:
            case EventKind.TRIGGERED:
                Stats.incr("floe_maintenance_triggers_total")
                Stats.gauge("floe_active_policies", self._active_policies)
            case EventKind.RUN_REFUSED:
                Stats.incr("floe_maintenance_failures_total")
            case EventKind.POLICY_MATCHED:
                Stats.incr("floe_policy_matches_total")
            case EventKind.GATE_EVALUATED:
                self._count_gate(event.data)
            case EventKind.OPERATION_STARTED:
                Stats.gauge("floe_running_operations", self._running())
            case EventKind.OPERATION_FINISHED:
                self._count_finished(event.data)

    def _count_finished(self, data: Mapping[str, Any]) -> None:
        outcome = data.get("outcome")
        if outcome == "SUCCESS":
            Stats.incr("floe_maintenance_success_total")
        elif outcome != "SKIPPED":
            Stats.incr("floe_maintenance_failures_total")
        if outcome != "SKIPPED":
            Stats.timing("floe_operation_duration_seconds", timedelta(seconds=float(data.get("duration_seconds", 0))))
        Stats.gauge("floe_running_operations", self._running())

    @staticmethod
    def _count_gate(data: Mapping[str, Any]) -> None:
        gate, passed = data.get("gate"), data.get("passed")
        if gate == GateName.CONDITIONS and passed is not None and (data.get("met") or data.get("unmet")):
            Stats.incr("floe_trigger_evaluations_total")
            Stats.incr("floe_trigger_conditions_met_total" if passed else "floe_trigger_conditions_not_met_total")
        elif gate == GateName.INTERVAL and passed is False:
            Stats.incr("floe_trigger_blocked_by_interval_total")
        elif gate == GateName.DEADLINE and data.get("forced"):
            Stats.incr("floe_trigger_forced_by_critical_pipeline_total")
