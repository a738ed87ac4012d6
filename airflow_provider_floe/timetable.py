"""The timetable of policy DAGs: it ticks at every slot of any operation of its policies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.timetables.trigger import CronTriggerTimetable
from pendulum import DateTime

from airflow_provider_floe.policies.model import Policy, Schedule
from airflow_provider_floe.policies.schedules import PolicyTicks, plain_cron, tick_schedules


class FloePolicyTimetable(Timetable):
    """Runs at the slots of schedules. After an outage it runs once, for the latest slot.

    :param schedules: schedule objects of policies, in wire format.
    :param timezone: IANA name of the zone of schedules that name none.
    """

    def __init__(self, schedules: Sequence[dict[str, Any]], *, timezone: str = "UTC") -> None:
        self.schedules = [dict(schedule) for schedule in schedules]
        self.timezone = timezone
        self.description = "Slots of the policy's schedules"

    @cached_property
    def _ticks(self) -> PolicyTicks:
        schedules = [Schedule.model_validate(schedule) for schedule in self.schedules]
        return PolicyTicks.of_schedules(schedules, self.timezone)

    @property
    def summary(self) -> str:
        """What the UI shows."""
        return ", ".join(dict.fromkeys(_in_words(schedule) for schedule in self.schedules))

    def serialize(self) -> dict[str, Any]:
        """What :meth:`deserialize` needs."""
        return {"schedules": self.schedules, "timezone": self.timezone}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """The inverse of :meth:`serialize`."""
        return cls(data["schedules"], timezone=data["timezone"])

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """The moment of the run."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next slot; without catchup never one that a later slot before now has overtaken."""
        candidates: list[datetime | None] = []
        if last_automated_data_interval is not None:
            candidates.append(self._ticks.next_tick(_plain(last_automated_data_interval.end)))
        elif restriction.earliest is not None:
            candidates.append(self._ticks.next_tick(_plain(restriction.earliest) - timedelta(microseconds=1)))
        if not restriction.catchup or not candidates:
            candidates.append(self._ticks.latest_tick(_now()))
        known = [slot for slot in candidates if slot is not None]
        if not known:
            return None
        slot = max(known)
        if restriction.latest is not None and slot > restriction.latest:
            return None
        return DagRunInfo.exact(pendulum.instance(slot))


def policy_timetable(policies: Sequence[Policy], timezone: str) -> Timetable | None:
    """The timetable of a DAG over policies; None when nothing in them is scheduled.

    Where one plain cron says all, it is Airflow's own timetable.

    :param timezone: IANA name of the zone of schedules that name none.
    :raises InvalidSchedule: naming field, value and the fix.
    """
    documents = [
        schedule.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        for policy in policies
        for schedule in tick_schedules(policy)
    ]
    if not documents:
        return None
    crons = {plain_cron(policy, timezone) for policy in policies if tick_schedules(policy)}
    if len(crons) == 1 and (plain := crons.pop()) is not None:
        return CronTriggerTimetable(plain[0], timezone=plain[1])
    distinct = [document for index, document in enumerate(documents) if document not in documents[:index]]
    return FloePolicyTimetable(distinct, timezone=timezone)


def _in_words(schedule: dict[str, Any]) -> str:
    interval = schedule.get("interval")
    return f"every {interval}" if interval else str(schedule["cronExpression"])


def _now() -> datetime:
    return datetime.now(UTC)


def _plain(at: datetime) -> datetime:
    """Without pendulum, whose differences cannot be divided by a timedelta."""
    return datetime.fromisoformat(at.astimezone(UTC).isoformat())
