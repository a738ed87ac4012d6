"""Whether an operation's schedule makes it due."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_floe.planning.model import DueState
from airflow_provider_floe.policies.model import Schedule
from airflow_provider_floe.policies.schedules import SlotSchedule


def due_state(
    schedule: Schedule | None,
    consumed: datetime | None,
    run_after: datetime,
    now: datetime,
    default_timezone: str,
) -> DueState:
    """Hold a schedule against the slot that was consumed last.

    :param schedule: of the governing policy; None or a disabled one means on demand only.
    :param consumed: newest consumed slot of this (table, operation), UTC.
    :param run_after: slots up to here can be due, UTC.
    :param now: for the window, UTC.
    :param default_timezone: IANA name, for a schedule that names none.
    """
    if schedule is None or not schedule.enabled or (schedule.interval is None and schedule.cron_expression is None):
        return DueState(scheduled=False, consumed_slot=consumed)
    slots = SlotSchedule.of(schedule, default_timezone)
    in_window = slots.in_window(now)
    return DueState(
        scheduled=True,
        latest_slot=slots.latest_slot(run_after),
        consumed_slot=consumed,
        first_open_slot=None if consumed is None else slots.next_slot(consumed),
        next_slot=slots.next_slot(run_after),
        in_window=in_window,
        next_window_at=None if in_window else slots.next_window(now),
    )
